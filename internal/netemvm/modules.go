package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"slices"
	"strings"
)

// closure is those modules and all that they need, in an order in which they can be loaded. What isn't among all is
// taken to be built into the kernel.
func closure(wanted []string, all map[string][]byte) ([]string, error) {
	var order []string
	for _, name := range wanted {
		if all[name] == nil {
			return nil, fmt.Errorf("this kernel has no module %s", name)
		}
		if err := visit(name, all, &order, nil); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func visit(name string, all map[string][]byte, order *[]string, above []string) error {
	if slices.Contains(*order, name) || all[name] == nil {
		return nil
	}
	if slices.Contains(above, name) {
		return fmt.Errorf("modules need each other in a circle: %s", strings.Join(append(above, name), " → "))
	}
	needed, err := dependencies(all[name])
	if err != nil {
		return fmt.Errorf("module %s: %w", name, err)
	}
	for _, n := range needed {
		if err := visit(n, all, order, append(above, name)); err != nil {
			return err
		}
	}
	*order = append(*order, name)
	return nil
}

// dependencies are the modules that a module says it needs. Its section .modinfo has a field "depends"; there is no
// modules.dep in a package that wasn't installed.
func dependencies(module []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("there is no section .modinfo: not a kernel module")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(underscored(list), ","), nil
		}
	}
	return nil, nil
}

// underscored is the one form of a module's name: files and dependencies may have dashes in it.
func underscored(name string) string { return strings.ReplaceAll(name, "-", "_") }
