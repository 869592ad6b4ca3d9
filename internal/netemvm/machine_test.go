package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestArchiveCanBeReadAgain(t *testing.T) {
	files := archive{"init": []byte("#!"), "a/b/c": []byte("12345"), "a/empty": nil}
	var out bytes.Buffer
	if err := files.write(&out); err != nil {
		t.Fatal(err)
	}
	var said []string
	for raw := out.Bytes(); ; {
		field := func(n int) int {
			v, err := strconv.ParseUint(string(raw[6+8*n:14+8*n]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(v)
		}
		if string(raw[:6]) != "070701" {
			t.Fatalf("an entry begins with %q", raw[:6])
		}
		size, named := field(6), field(11)
		name := string(raw[110 : 110+named-1])
		data := (110 + named + 3) &^ 3
		if name == "TRAILER!!!" {
			break
		}
		said = append(said, fmt.Sprintf("%s %o %s", name, field(1), raw[data:data+size]))
		raw = raw[(data+size+3)&^3:]
	}
	want := []string{
		"a 40755 ", "a/b 40755 ", "dev 40755 ", "proc 40755 ", "sys 40755 ", "tmp 40755 ",
		"a/b/c 100755 12345", "a/empty 100755 ", "init 100755 #!",
	}
	if !slices.Equal(said, want) {
		t.Errorf("there are\n%s\nand should be\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
	}
}

func TestArchiveRefusesPathsOutside(t *testing.T) {
	for _, name := range []string{"/init", "../init", "a//b"} {
		if err := (archive{name: nil}).write(io.Discard); err == nil {
			t.Errorf("%q is written", name)
		}
	}
}

// module is an ELF file with nothing but a section .modinfo.
func module(info string) []byte {
	names := "\x00.modinfo\x00.shstrtab\x00"
	const header, section = 64, 64
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	data := uint64(header)
	strings := data + uint64(len(info))
	put(elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1}, Type: uint16(elf.ET_REL),
		Machine: uint16(elf.EM_X86_64), Version: 1, Shoff: strings + uint64(len(names)), Ehsize: header, Shentsize: section, Shnum: 3, Shstrndx: 2,
	})
	b.WriteString(info + names)
	put(elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: data, Size: uint64(len(info))})
	put(elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: strings, Size: uint64(len(names))})
	return b.Bytes()
}

func TestClosureLoadsWhatIsNeededFirst(t *testing.T) {
	all := map[string][]byte{
		"sch_netem": module("license=GPL\x00depends=\x00"),
		"nft_ct":    module("depends=nf-tables,nf_conntrack\x00"),
		"nf_tables": module("depends=nfnetlink,libcrc32c\x00"), "nfnetlink": module(""), "libcrc32c": module("depends=\x00"),
		"nf_conntrack": module("depends=built_in,libcrc32c\x00"),
		"circle":       module("depends=square\x00"), "square": module("depends=circle\x00"), "broken": []byte("ELF?"),
	}
	got, err := closure([]string{"sch_netem", "nft_ct"}, all)
	want := []string{"sch_netem", "nfnetlink", "libcrc32c", "nf_tables", "nf_conntrack", "nft_ct"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; should be %v", got, err, want)
	}
	for wrong, says := range map[string]string{"missing": "no module missing", "circle": "circle → square", "broken": "module broken"} {
		if _, err := closure([]string{wrong}, all); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, should say %q", wrong, err, says)
		}
	}
}

func TestFollowFindsTheStatus(t *testing.T) {
	for _, c := range []struct {
		console, out string
		status       int
		fails        bool
	}{
		{"PASS\r\n\r\nguest: exit status 0\r\n[ 9.9] reboot: Restarting system\r\n", "PASS\n\n[ 9.9] reboot: Restarting system\n", 0, false},
		{"FAIL\nguest: exit status 2\n", "FAIL\n", 2, false},
		{"Kernel panic", "Kernel panic", 0, true},
		{"guest: exit status pending\n", "guest: exit status pending\n", 0, true},
		{"", "", 0, true},
	} {
		var out strings.Builder
		status, err := follow(strings.NewReader(c.console), &out)
		if status != c.status || (err != nil) != c.fails || out.String() != c.out {
			t.Errorf("%q: %d, %v, %q", c.console, status, err, out.String())
		}
	}
}

func TestTicks(t *testing.T) {
	if n := ticksPerMillisecond(); n < 100_000 || n > 10_000_000 {
		t.Errorf("the processor counts %d times a millisecond", n)
	}
}
