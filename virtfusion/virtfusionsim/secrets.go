package virtfusionsim

import "fmt"

// What stands where a real VirtFusion has secrets: easy to find where it must
// not be.
const (
	secretPassword    = "sim-secret-encrypted-password-4c1f"
	secretCloudInit   = "sim-secret-cloud-init-77b0"
	secretVNC         = "sim-secret-vnc-password-19ad"
	secretSSHKey      = "sim-secret-ssh-key-e5d2"
	secretScreen      = "sim-secret-os-screen-30c8"
	secretAgentScreen = "sim-secret-agent-screen-b64e"
	secretEmail       = "sim-secret-email-92fa"
)

// Secrets returns the markers that stand in the panel's secret fields. None of
// them may ever be found in a stream, a database or a log.
func Secrets() []string {
	return []string{secretPassword, secretCloudInit, secretVNC, secretSSHKey, secretScreen, secretAgentScreen, secretEmail}
}

// email is a user's address.
func email(u User) string { return fmt.Sprintf("%s-%d@customers.example", secretEmail, u.ID) }
