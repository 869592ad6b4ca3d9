package images

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// machines are the processors that Linux nodes have, by Go's name for them.
var machines = map[string]elf.Machine{
	"386": elf.EM_386, "amd64": elf.EM_X86_64, "arm": elf.EM_ARM, "arm64": elf.EM_AARCH64, "loong64": elf.EM_LOONGARCH,
	"ppc64le": elf.EM_PPC64, "riscv64": elf.EM_RISCV, "s390x": elf.EM_S390,
}

// Runnable refuses a file that would not run on a Linux node in an image that holds nothing else.
func Runnable(path, architecture string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("looking at the program: %w", err)
	}
	defer file.Close()
	program, err := elf.NewFile(file)
	if err != nil {
		return foreign(file, err)
	}
	wanted, known := machines[architecture]
	switch {
	case !known:
		return away("nothing is known of nodes with the architecture %q", architecture)
	case program.Type != elf.ET_EXEC && program.Type != elf.ET_DYN:
		return unfit("it is an object file and not a program")
	case program.Machine != wanted:
		return unfit("it is built for %s, and the nodes are %s: build it with GOARCH=%s", processor(program.Machine), architecture, architecture)
	case program.OSABI != elf.ELFOSABI_NONE && program.OSABI != elf.ELFOSABI_LINUX:
		return unfit("it is built for %s, and the nodes run Linux: build it with GOOS=linux", program.OSABI)
	}
	return dynamic(program)
}

// processor is Go's name of a processor, where it has one.
func processor(machine elf.Machine) string {
	for name, m := range machines {
		if m == machine {
			return name
		}
	}
	return machine.String()
}

// dynamic refuses a program that needs others beside it.
func dynamic(program *elf.File) error {
	var needs []string
	for _, part := range program.Progs {
		if part.Type != elf.PT_INTERP {
			continue
		}
		interpreter, err := io.ReadAll(io.LimitReader(part.Open(), 4096))
		if err != nil {
			return unfit("it is damaged: %v", err)
		}
		needs = append(needs, string(bytes.TrimRight(interpreter, "\x00")))
	}
	libraries, err := program.ImportedLibraries()
	if err != nil {
		return unfit("it is damaged: %v", err)
	}
	if needs = append(needs, libraries...); len(needs) == 0 {
		return nil
	}
	return unfit("it needs an interpreter and libraries (%s), and its image holds the program alone: link it statically "+
		"(Go: CGO_ENABLED=0, so no `cgo: true`, and no -buildmode=pie), or give it an `image:` or `dockerfile:` source that brings them",
		strings.Join(needs, ", "))
}

// beginnings tell what a file that isn't Linux's is.
var beginnings = []struct{ begin, is string }{
	{"\xcf\xfa\xed\xfe", "a program for macOS"},
	{"\xca\xfe\xba\xbe", "a program for macOS"},
	{"MZ", "a program for Windows"},
}

// foreign says what a file is that is no Linux program.
func foreign(file *os.File, fault error) error {
	begin := make([]byte, 256)
	n, err := file.ReadAt(begin, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("looking at the program: %w", err)
	}
	begin = begin[:n]
	if script, ok := bytes.CutPrefix(begin, []byte("#!")); ok {
		line, _, _ := bytes.Cut(script, []byte("\n"))
		return unfit("it is a script for %s, and its image would hold the script alone: give it an `image:` or `dockerfile:` source "+
			"that has the interpreter", bytes.TrimSpace(line))
	}
	for _, known := range beginnings {
		if bytes.HasPrefix(begin, []byte(known.begin)) {
			return unfit("it is %s, and the nodes run Linux: build it with GOOS=linux", known.is)
		}
	}
	return unfit("it is no program that Linux could run: %v", fault)
}
