#!/bin/sh
# Proves the import rules of .golangci.yml: in a module made for it, writes one probe for each import below
# and sees that the linter refuses exactly those that it should.
set -eu

cd "$(dirname "$0")/.."
root=$PWD

# what should happen | where: folder, or folder and file | import
probes='
ok     ingest events
ok     ingest virtfusion
ok     ingest db
ok     ingest schemas
ok     ingest internal/plumbing
refuse ingest reconciler
refuse ingest api
refuse ingest web
refuse ingest cmd/serversync
refuse ingest virtfusion/virtfusionsim
refuse ingest db/dbtest
refuse ingest db/pgserver
ok     ingest github.com/uptrace/bun
refuse ingest/webhook.go github.com/uptrace/bun
refuse ingest/refetch.go github.com/uptrace/bun
refuse ingest github.com/jackc/pgx/v5
refuse ingest github.com/nats-io/nats.go
ok     ingest/x_test.go db/dbtest
ok     ingest/x_test.go events/eventstest
ok     ingest/x_test.go virtfusion/virtfusionsim
ok     ingest/x_test.go github.com/nats-io/nats.go
refuse ingest/x_test.go reconciler

ok     events schemas
ok     events internal/plumbing
ok     events github.com/nats-io/nats.go
refuse events ingest
refuse events reconciler
refuse events db
refuse events virtfusion
refuse events api
refuse events web
refuse events cmd/serversync
refuse events github.com/uptrace/bun
refuse events events/eventstest
ok     events/eventstest events
ok     events/x_test.go events/eventstest
refuse events/x_test.go db

ok     notify db
ok     notify internal/plumbing
ok     notify net/http
ok     notify/x_test.go db/dbtest
refuse notify events
refuse notify api
refuse notify reconciler
refuse notify db/dbtest
refuse notify github.com/nats-io/nats.go

ok     reconciler events
ok     reconciler db
ok     reconciler net/url
refuse reconciler ingest
refuse reconciler virtfusion
refuse reconciler virtfusion/virtfusionsim
refuse reconciler api
refuse reconciler web
refuse reconciler schemas
refuse reconciler cmd/serversync
refuse reconciler db/dbtest
refuse reconciler db/pgserver
refuse reconciler net/http
refuse reconciler github.com/labstack/echo/v4
ok     reconciler github.com/nats-io/nats.go
ok     reconciler github.com/uptrace/bun
ok     reconciler/decide.go time
refuse reconciler/decide.go context
refuse reconciler/decide.go github.com/uptrace/bun
refuse reconciler/decide_price.go database/sql
ok     reconciler/decide_test.go context
ok     reconciler/x_test.go db/dbtest
ok     reconciler/x_test.go events/eventstest
ok     reconciler/x_test.go virtfusion/virtfusionsim
ok     reconciler/x_test.go schemas
refuse reconciler/x_test.go ingest

ok     db github.com/uptrace/bun
ok     db/dbtest db
ok     db/dbtest db/pgserver
ok     db/skypanelsim db
ok     db db/pgserver
ok     db/x_test.go db/dbtest
ok     db/x_test.go schemas
refuse db db/dbtest
refuse db db/skypanelsim
refuse db events
refuse db ingest
refuse db reconciler
refuse db schemas
refuse db virtfusion
refuse db api
refuse db web
refuse db internal/plumbing
refuse db cmd/serversync
refuse db net/http
refuse db/dbtest events
refuse db/pgserver db
ok     db/pgserver db/pgserver/binaries
refuse db/pgserver/binaries db
refuse db/skypanelsim virtfusion
refuse db/x_test.go events

refuse schemas db
refuse schemas events
refuse schemas virtfusion
refuse schemas api
refuse schemas cmd/serversync
refuse schemas internal/plumbing
refuse schemas/x_test.go events

refuse web api
refuse web db
refuse web schemas
refuse web internal/plumbing
refuse web cmd/serversync

ok     virtfusion/virtfusionsim virtfusion
ok     virtfusion/x_test.go virtfusion/virtfusionsim
ok     virtfusion/x_test.go schemas
refuse virtfusion virtfusion/virtfusionsim
refuse virtfusion events
refuse virtfusion db
refuse virtfusion schemas
refuse virtfusion ingest
refuse virtfusion internal/plumbing
refuse virtfusion cmd/serversync
refuse virtfusion github.com/uptrace/bun
refuse virtfusion github.com/nats-io/nats.go
refuse virtfusion/virtfusionsim events
refuse virtfusion/x_test.go events

ok     api db
ok     api events
ok     api schemas
ok     api internal/plumbing
ok     api github.com/uptrace/bun
refuse api ingest
refuse api reconciler
refuse api virtfusion
refuse api web
refuse api cmd/serversync
refuse api db/dbtest
refuse api github.com/nats-io/nats.go
ok     api/x_test.go db/dbtest
ok     api/x_test.go virtfusion/virtfusionsim
refuse api/x_test.go ingest

ok     cmd/other ingest
ok     cmd/other events
ok     cmd/other reconciler
ok     cmd/other db
ok     cmd/other db/pgserver
ok     cmd/other db/skypanelsim
ok     cmd/other schemas
ok     cmd/other api
ok     cmd/other web
ok     cmd/other virtfusion
ok     cmd/other virtfusion/virtfusionsim
ok     cmd/other internal/plumbing
ok     cmd/other log
ok     cmd/other github.com/nats-io/nats.go
refuse cmd/other db/dbtest
refuse cmd/other events/eventstest
refuse cmd/other math/rand

refuse internal/plumbing events
refuse internal/plumbing db
refuse internal/plumbing schemas
refuse internal/plumbing cmd/serversync
refuse internal/plumbing github.com/uptrace/bun
ok     internal/plumbing internal/other
ok     internal/plumbing log
refuse newfolder db

refuse ingest log
refuse ingest log/slog
refuse ingest math/rand
ok     ingest math/rand/v2
refuse ingest io/ioutil
refuse ingest github.com/pkg/errors
refuse ingest/x_test.go math/rand
'

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
cd "$dir"
cp "$root/.golangci.yml" .

# The module: the project's packages and its libraries, all empty. Probes get a package each, so that what is
# refused does not also fail as an import cycle, and neither does the command as a program.
{
	printf 'module serversync\n\ngo 1.26\n\n'
	for library in github.com/uptrace/bun github.com/jackc/pgx/v5 github.com/nats-io/nats.go github.com/labstack/echo/v4 github.com/pkg/errors; do
		mkdir -p "libraries/$library"
		printf 'module %s\n' "$library" >"libraries/$library/go.mod"
		printf 'package library\n' >"libraries/$library/library.go"
		case $library in
		*/v4) version=v4.0.0 ;;
		*/v5) version=v5.0.0 ;;
		*) version=v1.0.0 ;;
		esac
		printf 'require %s %s\nreplace %s => ./libraries/%s\n' "$library" "$version" "$library" "$library"
	done
} >go.mod
for package in api cmd/serversync db db/dbtest db/pgserver db/pgserver/binaries db/skypanelsim events events/eventstest ingest internal/other \
	internal/plumbing reconciler schemas virtfusion virtfusion/virtfusionsim web; do
	mkdir -p "$package"
	printf 'package stub\n' >"$package/stub.go"
done

number=1000
: >expected
printf '%s\n' "$probes" | while read -r verdict where import; do
	[ -n "$verdict" ] || continue
	number=$((number + 1))
	case $where in
	*.go) folder=${where%/*}/p$number file=${where##*/} ;;
	*) folder=$where/p$number file=x.go ;;
	esac
	if [ -d "$import" ]; then path=serversync/$import; else path=$import; fi
	mkdir -p "$folder"
	printf 'package probe\n\nimport _ "%s"\n' "$path" >"$folder/$file"
	[ "$verdict" = ok ] || echo "$folder/$file may not import $path" >>expected
done

# Every finding is one line: file:line:column: import 'path' is not allowed from list '…'. Several rules may agree.
status=0
go tool -modfile="$root/tools.mod" golangci-lint run --enable-only depguard --output.text.print-issued-lines=false \
	--show-stats=false >found.txt 2>errors.txt || status=$?
sed -n "s/^\([^:]*\):[0-9:]* import '\([^']*\)' is not allowed.*/\1 may not import \2/p" found.txt | sort -u >found
sort -u -o expected expected
if ! diff expected found >differences || grep -v "is not allowed" found.txt >others; then
	echo "The import rules of .golangci.yml do not do what they should (golangci-lint exited $status):" >&2
	sed -n 's/^< \(.*\)/  not refused: \1/p; s/^> \(.*\)/  refused, but should be allowed: \1/p' differences >&2
	cat others errors.txt >&2 2>/dev/null || true
	exit 1
fi
echo "import rules: $(wc -l <expected) imports refused, $(printf '%s\n' "$probes" | grep -c '^ok') allowed, as they should"
