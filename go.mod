module serversync

go 1.26.8
