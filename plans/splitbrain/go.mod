module github.com/groundplan/groundplan/plans/splitbrain

go 1.25.0

require github.com/groundplan/groundplan/sdk v0.0.0

require github.com/coder/websocket v1.8.15 // indirect

replace github.com/groundplan/groundplan/sdk => ../../sdk
