// Command guide follows the integration guide to the letter, on a bare machine:
// a minimal Debian, made for the purpose and booted with its own systemd in a
// container without a network, in which there is nothing but SkyPANEL's
// PostgreSQL and a simulated VirtFusion. Each command of the page is typed into
// one shell, in its order; its exit code and the output that the page shows are
// held against what happened, and at the end the books against VirtFusion. Then
// the commands of the other pages are tried on the same machine.
//
// What a page shows is marked by comments that a reader does not see:
//
//	<!-- guide: exit 3 -->          the next block's last command ends with 3
//	<!-- guide: not run: REASON --> the next block is shown, not run
//	<!-- guide: VirtFusion webhook TOKEN-FILE -->   enter our webhook there
//	<!-- guide: VirtFusion create --> create a server there
//
// It needs root on Debian, with debootstrap and systemd-nspawn. Where the machine
// cannot be made the exit code is 4, and nothing was said about the page.
package main
