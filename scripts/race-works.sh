#!/bin/sh
# Exits 0 where a program can be built with the race detector: it needs a C compiler with its library's
# headers, on a platform that Go has the detector for.
set -eu

case "$(go env GOOS)/$(go env GOARCH)" in
linux/amd64 | linux/arm64 | linux/ppc64le | linux/s390x | linux/loong64 | linux/riscv64) ;;
darwin/amd64 | darwin/arm64 | freebsd/amd64 | netbsd/amd64) ;;
*) exit 1 ;;
esac

# CC may hold a compiler and its flags.
# shellcheck disable=SC2046
printf '#include <stdlib.h>\n#include <pthread.h>\nint main(void) { return EXIT_SUCCESS; }\n' |
	$(go env CC) -x c -pthread -o /dev/null - 2>/dev/null
