package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/pipelines/testground"
)

// loadComposition imports a composition in memory.
func (s *source) loadComposition(file string, o pipelines.Options) (*pipelines.Document, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, usage(err)
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	plan, ok := planOf(path)
	if !ok {
		return nil, usage(fmt.Errorf("%s is a composition, and no folder above it has a manifest.toml: name the plan's with `groundplan import testground DIR --composition %s`", file, file))
	}
	root, ok := above(plan, ".git")
	if !ok {
		root = plan
	}
	folder, err := filepath.Rel(filepath.Dir(path), plan)
	if err != nil {
		return nil, usage(err)
	}
	name, err := filepath.Rel(root, path)
	if err != nil {
		return nil, usage(err)
	}
	result, err := convert(plan, file, filepath.ToSlash(folder))
	if err != nil {
		return nil, err
	}
	bundle := pipelines.Bundle{File: filepath.ToSlash(name), Set: o.Set, Seed: o.Seed, Only: o.Only}
	bundle.Files = map[string]string{bundle.File: string(result.Pipelines[0].Text)}
	doc, err := pipelines.Open(bundle)
	if err != nil {
		return nil, usage(err)
	}
	for _, row := range result.Report {
		if row.State == testground.Lost || row.State == testground.Unknown {
			s.lost = append(s.lost, row)
		}
	}
	return doc, nil
}

// planName matches where a composition says which plan it is of.
var planName = regexp.MustCompile(`(?m)^\s*plan\s*=\s*["']([^"'{}]+)["']`)

// planOf is the folder of a composition's plan: the nearest one upwards that has a manifest, or beside which the plan's
// name, or the end of it, leads to one. So a composition may lie in a folder beside those of several plans.
func planOf(composition string) (string, bool) {
	var ends []string // of the plan's name: a/b/c, b/c, c
	if data, err := os.ReadFile(composition); err == nil {
		if found := planName.FindSubmatch(data); found != nil {
			parts := strings.Split(string(found[1]), "/")
			for i := range parts {
				if end := filepath.Join(parts[i:]...); filepath.IsLocal(end) {
					ends = append(ends, end)
				}
			}
		}
	}
	for dir := filepath.Dir(composition); ; dir = filepath.Dir(dir) {
		for _, plan := range append(ends, ".") {
			if folder := filepath.Join(dir, plan); isFile(filepath.Join(folder, "manifest.toml")) {
				return folder, true
			}
		}
		if dir == filepath.Dir(dir) {
			return "", false
		}
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// above is the nearest folder upwards that holds something of that name.
func above(folder, name string) (string, bool) {
	for dir := folder; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return dir, true
		}
		if dir == filepath.Dir(dir) {
			return "", false
		}
	}
}

// tellLost names what of a composition the pipeline doesn't say.
func (a *app) tellLost(rows []testground.Row) {
	for _, r := range rows {
		a.tell("%s:%d: %s is left out: %s", r.File, r.Line, r.Key, r.Became)
	}
}
