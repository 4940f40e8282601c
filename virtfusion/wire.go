package virtfusion

// wireServer is the union of the three forms. Only these fields are read.
type wireServer struct {
	ID               number
	UUID             text
	OwnerID          number
	Owner            wireOwner
	Name             text
	Hostname         text
	State            text
	CommissionStatus number
	Commissioned     number
	Suspended        flag
	Protected        flag
	Rebuild          flag
	BuildFailed      flag
	SelfService      level
	PackageID        number
	Settings         wireSettings
	Resources        wireResources
	CPU              wireCPU
	Network          wireNetwork
	HypervisorID     number
	Hypervisor       wireHost
	Created          timestamp
	Updated          timestamp
	Built            timestamp
}

func (w *wireServer) read(data []byte) {
	f := fieldsOf(data)
	for f.next() {
		switch string(f.key()) {
		case "id":
			w.ID.read(f.value)
		case "uuid":
			w.UUID.read(f.value)
		case "ownerid":
			w.OwnerID.read(f.value)
		case "owner":
			w.Owner.read(f.value)
		case "name":
			w.Name.read(f.value)
		case "hostname":
			w.Hostname.read(f.value)
		case "state":
			w.State.read(f.value)
		case "commissionstatus":
			w.CommissionStatus.read(f.value)
		case "commissioned":
			w.Commissioned.read(f.value)
		case "suspended":
			w.Suspended.read(f.value)
		case "protected":
			w.Protected.read(f.value)
		case "rebuild":
			w.Rebuild.read(f.value)
		case "buildfailed":
			w.BuildFailed.read(f.value)
		case "selfservice":
			w.SelfService.read(f.value)
		case "packageid": //nolint:misspell // packageId in lower case
			w.PackageID.read(f.value)
		case "settings":
			w.Settings.read(f.value)
		case "resources":
			w.Resources.read(f.value)
		case "cpu":
			w.CPU.read(f.value)
		case "network":
			w.Network.read(f.value)
		case "hypervisorid":
			w.HypervisorID.read(f.value)
		case "hypervisor":
			w.Hypervisor.read(f.value)
		case "created":
			w.Created.read(f.value)
		case "updated":
			w.Updated.read(f.value)
		case "built":
			w.Built.read(f.value)
		}
	}
}

type wireSettings struct {
	Resources wireResources
}

func (w *wireSettings) read(data []byte) {
	f := fieldsOf(data)
	for f.next() {
		if string(f.key()) == "resources" {
			w.Resources.read(f.value)
		}
	}
}

type wireResources struct {
	Memory   number
	Storage  number
	Traffic  number
	CPUCores number
}

func (w *wireResources) read(data []byte) {
	f := fieldsOf(data)
	for f.next() {
		switch string(f.key()) {
		case "memory":
			w.Memory.read(f.value)
		case "storage":
			w.Storage.read(f.value)
		case "traffic":
			w.Traffic.read(f.value)
		case "cpucores":
			w.CPUCores.read(f.value)
		}
	}
}

type wireCPU struct {
	Cores number
}

func (w *wireCPU) read(data []byte) {
	f := fieldsOf(data)
	for f.next() {
		if string(f.key()) == "cores" {
			w.Cores.read(f.value)
		}
	}
}

type wireHost struct {
	ID      number
	Name    text
	GroupID number
}

func (w *wireHost) read(data []byte) {
	f := fieldsOf(data)
	for f.next() {
		switch string(f.key()) {
		case "id":
			w.ID.read(f.value)
		case "name":
			w.Name.read(f.value)
		case "groupid":
			w.GroupID.read(f.value)
		}
	}
}

// wireOwner is an object, or the owner's id alone (simple form).
type wireOwner struct {
	id            number
	known         bool // it was an object: only then the rest says something
	extRelationID number
	admin         flag
	suspended     flag
}

func (o *wireOwner) read(data []byte) {
	*o = wireOwner{}
	if !isObject(data) {
		o.id.read(data)
		return
	}
	o.known = true
	f := fieldsOf(data)
	for f.next() {
		switch string(f.key()) {
		case "id":
			o.id.read(f.value)
		case "extrelationid":
			o.extRelationID.read(f.value)
		case "admin":
			o.admin.read(f.value)
		case "suspended":
			o.suspended.read(f.value)
		}
	}
}
