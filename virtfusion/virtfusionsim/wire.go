package virtfusionsim

import (
	"strconv"
	"strings"
	"time"
)

// object is a JSON object.
type object = map[string]any

// writer turns the panel's state into VirtFusion's JSON; its caller holds the
// panel's mu.
type writer struct {
	panel *Panel
	// textual: ids are text, and so are some other numbers.
	textual bool
}

// id is a number, or text.
func (w writer) id(n int64) any {
	if w.textual {
		return strconv.FormatInt(n, 10)
	}
	return n
}

// stamp is ISO 8601 with an offset; null for a time that never was.
func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05-07:00")
}

// nullable is null for an empty text.
func nullable(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// full is the form of webhooks, GET /servers/{id} and ?type=full.
func (w writer) full(s *Server) object {
	host := w.panel.hypervisors[s.HypervisorID]
	return w.known(object{
		"id":               w.id(s.ID),
		"ownerId":          w.id(s.OwnerID),
		"owner":            w.owner(w.panel.users[s.OwnerID]),
		"hypervisorId":     w.id(s.HypervisorID),
		"hypervisor":       object{"id": host.ID, "name": host.Name, "groupId": host.GroupID, "hostname": host.Name + ".example.net", "maintenance": false},
		"arch":             1,
		"name":             s.Name,
		"hostname":         nullable(s.Hostname),
		"commissionStatus": s.CommissionStatus,
		"uuid":             s.UUID,
		"state":            s.State,
		"suspended":        s.Suspended,
		"protected":        s.Protected,
		"rebuild":          s.Rebuild,
		"buildFailed":      s.BuildFailed,
		"selfService":      s.SelfService,
		"packageId":        w.planID(s),
		"migrateLevel":     0,
		"deleteLevel":      0,
		"configLevel":      0,
		"created":          stamp(s.Created),
		"updated":          stamp(s.Updated),
		"built":            stamp(s.Built),
		"settings": object{
			"osTemplateInstall":   true,
			"osTemplateInstallId": 12,
			"encryptedPassword":   secretPassword,
			"backupPlan":          0,
			"uefi":                false,
			"cloudInit":           true,
			"cloudInitType":       1,
			"cloudInitUserData":   "#cloud-config\npassword: " + secretCloudInit + "\n",
			"resources":           resources(s),
			"machineType":         "q35",
			"bootOrder":           []string{"hd", "cdrom"},
			"tpmType":             0,
			"networkBoot":         false,
		},
		"cpu":          object{"cores": s.CPUCores, "type": "host-model", "typeExact": "EPYC", "shares": 1024},
		"media":        object{"isoMounted": false, "isoType": nil, "isoName": nil, "isoId": nil},
		"backupPlan":   object{"id": 0, "name": nil},
		"vnc":          object{"ip": "127.0.0.1", "port": 5901, "password": secretVNC, "enabled": true},
		"network":      w.network(s),
		"storage":      []object{{"_id": 1, "id": 1, "capacity": s.StorageGB, "drive": "a", "filesystem": "ext4", "primary": true, "storageType": 3, "path": "/home/vf-data/disk", "datastore": []string{}}},
		"sshKeys":      []object{{"id": 4, "name": "laptop", "publicKey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI " + secretSSHKey}},
		"sharedUsers":  []any{},
		"tasks":        object{"active": false, "lastOn": stamp(s.Updated), "actions": object{"pending": []any{}}},
		"os":           object{"dist": "debian", "version": "12", "name": "Debian 12 (Bookworm)", "kernel": "6.1", "screen": secretScreen},
		"qemuAgent":    object{"os": object{"id": "debian", "name": "Debian GNU/Linux", "version": "12 (bookworm)", "screen": screenshot()}},
		"trafficInfo":  object{"in": 1250334, "out": 88712, "blocked": false},
		"forwardDNS":   nil,
		"notes":        nil,
		"whmcs":        []any{},
		"selfServices": []any{},
	})
}

// known drops what the panel's version does not tell.
func (w writer) known(server object) object {
	if w.panel.config.OmitUpdated {
		delete(server, "updated")
	}
	if w.panel.config.OmitPackageID {
		delete(server, "packageId")
	}
	return server
}

// planID is the package's id; null without one.
func (w writer) planID(s *Server) any {
	if s.PackageID == 0 {
		return nil
	}
	return w.id(s.PackageID)
}

func (w writer) owner(u User) object {
	o := object{
		"id":            w.id(u.ID),
		"admin":         u.Admin,
		"extRelationId": nil,
		"name":          u.Name,
		"email":         email(u),
		"timezone":      "UTC",
		"suspended":     u.Suspended,
		"twoFactorAuth": false,
		"created":       "2023-01-15T10:00:00+00:00",
		"updated":       "2023-01-15T10:00:00+00:00",
	}
	if u.ExtRelationID != 0 {
		o["extRelationId"] = w.id(u.ExtRelationID)
	}
	return o
}

func resources(s *Server) object {
	return object{"memory": s.MemoryMB, "storage": s.StorageGB, "traffic": s.TrafficGB, "cpuCores": s.CPUCores}
}

// network has a private interface that is switched off before the public one,
// which only their order and enabled tell apart.
func (w writer) network(s *Server) object {
	v4 := make([]object, len(s.IPv4))
	for i, address := range s.IPv4 {
		v4[i] = object{
			"id": s.ID*10 + int64(i), "order": i + 1, "enabled": true, "blockId": 1, "address": address,
			"gateway": "192.0.2.254", "netmask": "255.255.255.0", "resolver1": "192.0.2.253", "resolver2": nil, "rdns": nil,
		}
	}
	v6 := []object{}
	if s.IPv6 != "" {
		v6 = append(v6, object{
			"id": s.ID, "order": 1, "enabled": true, "blockId": 2, "subnet": s.IPv6, "cidr": "64",
			"addresses": []any{}, "gateway": "2001:db8::1", "resolver1": nil, "resolver2": nil, "exhausted": false,
		})
	}
	return object{
		"interfaces": []object{
			{"id": s.ID*2 + 1, "order": 2, "enabled": false, "tag": s.ID*2 + 1, "name": "eth1", "type": "private", "driver": 1, "mac": "00:e2:59:00:00:02", "ipv4": []object{{"id": 9, "order": 1, "enabled": true, "address": "192.0.2.250"}}, "ipv6": []any{}},
			{"id": s.ID * 2, "order": 1, "enabled": true, "tag": s.ID * 2, "name": "eth0", "type": "public", "driver": 1, "mac": "00:e2:59:00:00:01", "inTrafficCount": true, "outTrafficCount": true, "inAverage": 0, "outAverage": 0, "ipv4": v4, "ipv6": v6},
		},
		"secondaryInterfaces": []any{},
	}
}

// simple is a row of ?type=simple.
func (w writer) simple(s *Server) object {
	return w.known(object{
		"id":           s.ID,
		"uuid":         s.UUID,
		"name":         s.Name,
		"commissioned": s.CommissionStatus,
		"owner":        s.OwnerID,
		"hypervisorId": s.HypervisorID,
		"suspended":    s.Suspended,
		"protected":    s.Protected,
		"updated":      stamp(s.Updated),
		"created":      stamp(s.Created),
	})
}

// ofUser is the form of GET /servers/user/{id}.
func (w writer) ofUser(s *Server) object {
	return object{
		"id":               s.ID,
		"ownerId":          s.OwnerID,
		"hypervisorId":     s.HypervisorID,
		"name":             s.Name,
		"hostname":         nullable(s.Hostname),
		"commissionStatus": s.CommissionStatus,
		"uuid":             s.UUID,
		"state":            s.State,
		"suspended":        s.Suspended,
		"protected":        s.Protected,
		"rebuild":          s.Rebuild,
		"buildFailed":      s.BuildFailed,
		"resources":        resources(s),
		"cpu":              object{"cores": s.CPUCores},
		"network":          w.network(s),
		"sshKeys":          []object{{"id": 4, "publicKey": "ssh-ed25519 " + secretSSHKey}},
	}
}

// args are those of the API request that created a server; PHP's empty list
// when it was created by hand.
func (w writer) args(args *CreateArgs) any {
	if args.ByHand {
		return []any{}
	}
	return object{
		"packageId":       w.id(args.PackageID),
		"userId":          w.id(args.OwnerID),
		"hypervisorId":    w.id(args.HypervisorID),
		"ipv4":            1,
		"storage":         nil,
		"traffic":         nil,
		"memory":          nil,
		"cpuCores":        nil,
		"storageProfile":  nil,
		"networkProfile":  nil,
		"dryRun":          false,
		"selfService":     args.SelfService,
		"additionalDisks": []any{},
	}
}

func (w writer) user(u User) object {
	o := w.owner(u)
	o["selfService"] = u.SelfService
	return o
}

func (w writer) plan(plan Package) object {
	return object{
		"id": plan.ID, "name": plan.Name, "description": nil, "enabled": !plan.Disabled,
		"memory": plan.MemoryMB, "primaryStorage": plan.StorageGB, "traffic": plan.TrafficGB, "cpuCores": plan.CPUCores,
		"primaryNetworkSpeedIn": 0, "primaryNetworkSpeedOut": 0, "primaryDiskType": "inherit", "backupPlanId": 0,
		"primaryStorageReadBytesSec": nil, "primaryStorageWriteBytesSec": nil, "created": "2023-01-15T10:00:00+00:00",
	}
}

// screenshot is the console's picture: the bulk of a webhook.
func screenshot() string {
	return "data:image/png;base64," + secretAgentScreen + strings.Repeat("iVBORw0KGgo", 60)
}
