module github.com/groundplan/groundplan/bench

go 1.26.8

require (
	github.com/groundplan/groundplan v0.0.0
	github.com/testground/sdk-go v0.3.0
	github.com/testground/sync-service v0.1.0
	golang.org/x/sys v0.48.0
)

replace github.com/groundplan/groundplan => ../
