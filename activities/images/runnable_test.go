package images

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// linux is the beginning of a program for a processor; with an interpreter, if one is named.
func linux(t testing.TB, architecture, interpreter string) []byte {
	var out bytes.Buffer
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machines[architecture]), Version: 1,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Shentsize: 64,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	if interpreter != "" {
		header.Phnum = 1
	}
	if err := binary.Write(&out, binary.LittleEndian, header); err != nil {
		t.Fatal(err)
	}
	if interpreter != "" {
		part := elf.Prog64{Type: uint32(elf.PT_INTERP), Off: 120, Filesz: uint64(len(interpreter) + 1)}
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
		out.WriteString(interpreter + "\x00")
	}
	return out.Bytes()
}

func TestRunnable(t *testing.T) {
	object := linux(t, "amd64", "")
	object[16] = byte(elf.ET_REL)
	freebsd := linux(t, "amd64", "")
	freebsd[elf.EI_OSABI] = byte(elf.ELFOSABI_FREEBSD)
	for _, test := range []struct {
		name         string
		content      []byte
		architecture string
		why          string
	}{
		{"static", linux(t, "amd64", ""), "amd64", ""},
		{"arm64", linux(t, "arm64", ""), "arm64", ""},
		{"dynamic", linux(t, "amd64", "/lib64/ld-linux-x86-64.so.2"), "amd64", "needs an interpreter and libraries (/lib64/ld-linux-x86-64.so.2)"},
		{"other processor", linux(t, "arm64", ""), "amd64", "built for arm64, and the nodes are amd64: build it with GOARCH=amd64"},
		{"object", object, "amd64", "an object file"},
		{"FreeBSD", freebsd, "amd64", "GOOS=linux"},
		{"macOS", []byte("\xcf\xfa\xed\xfe\x00\x00"), "amd64", "a program for macOS"},
		{"Windows", []byte("MZ\x90\x00"), "amd64", "a program for Windows"},
		{"script", []byte("#!/usr/bin/env python3\nprint(1)\n"), "amd64", "a script for /usr/bin/env python3"},
		{"text", []byte("hello"), "amd64", "no program that Linux could run"},
		{"empty", nil, "amd64", "no program that Linux could run"},
		{"unknown nodes", linux(t, "amd64", ""), "vax", `the architecture "vax"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "program")
			if err := os.WriteFile(path, test.content, 0o755); err != nil {
				t.Fatal(err)
			}
			err := Runnable(path, test.architecture)
			if test.why == "" && err != nil || test.why != "" && (err == nil || !strings.Contains(err.Error(), test.why)) {
				t.Errorf("%v, want %q", err, test.why)
			}
		})
	}
}

func FuzzRunnable(f *testing.F) {
	f.Add(linux(f, "amd64", "/lib/ld.so"))
	f.Add([]byte("#!/bin/sh\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := Runnable(path, "amd64"); err != nil && err.Error() == "" {
			t.Error("refused without a reason")
		}
	})
}
