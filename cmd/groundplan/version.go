package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build says which program this is.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Changed bool   `json:"changed,omitempty"` // the tree had changes that were not committed
	Go      string `json:"go"`
	// Platform is operating system and architecture: linux/amd64.
	Platform string `json:"platform"`
	Temporal string `json:"temporal,omitempty"`
}

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Show which groundplan this is", Args: args(cobra.NoArgs)}
	var form *string
	cmd.RunE = func(*cobra.Command, []string) error {
		info, _ := debug.ReadBuildInfo()
		b := describe(info)
		if *form == "json" {
			return a.json(b)
		}
		_, err := fmt.Fprintln(a.stdout, b)
		return err
	}
	form = output(cmd, "text", "json")
	return cmd
}

func describe(info *debug.BuildInfo) build {
	b := build{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info == nil {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Changed = s.Value == "true"
		}
	}
	for _, m := range info.Deps {
		if m.Path == "go.temporal.io/server" {
			b.Temporal = m.Version
		}
	}
	return b
}

func (b build) String() string {
	text := "groundplan " + b.Version
	if b.Commit != "" {
		text += " " + b.Commit[:min(12, len(b.Commit))]
	}
	if b.Changed {
		text += " (with changes)"
	}
	text += ", " + b.Go + ", " + b.Platform
	if b.Temporal != "" {
		text += ", Temporal " + b.Temporal
	}
	return text
}
