package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/groundplan/groundplan/internal/netemvm/errand"
)

const emulator = "qemu-system-x86_64"

// machine says what to boot, in files.
type machine struct {
	image, initramfs string
	memory           int // MiB
	processors       int
}

// arguments are the emulator's. It emulates: /dev/kvm need not be there, and where it is it need not work.
func (m machine) arguments() []string {
	return []string{
		"-machine", "microvm,accel=tcg", "-cpu", "max", "-smp", strconv.Itoa(m.processors), "-m", strconv.Itoa(m.memory),
		"-kernel", m.image, "-initrd", m.initramfs,
		// Only errors on the console; a panic or a restart ends the machine.
		"-append", fmt.Sprintf("console=ttyS0 loglevel=4 panic=-1 reboot=t tsc_early_khz=%d", ticksPerMillisecond()),
		"-no-reboot", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
	}
}

// run boots the machine, passes on what it says, and returns the exit status of its errand.
func (m machine) run(ctx context.Context, out io.Writer) (int, error) {
	cmd := exec.CommandContext(ctx, emulator, m.arguments()...)
	cmd.Stderr = os.Stderr
	console, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return 0, fmt.Errorf("%w: install Debian's package qemu-system-x86", err)
		}
		return 0, err
	}
	status, err := follow(console, out)
	ended := cmd.Wait()
	if ctx.Err() != nil {
		return 0, fmt.Errorf("the machine was stopped before its tests had ended: %w", context.Cause(ctx))
	}
	return status, errors.Join(err, ended)
}

// follow copies a console, without the carriage returns of a terminal, and finds the status in it.
func follow(console io.Reader, out io.Writer) (int, error) {
	status, known := 0, false
	lines := bufio.NewReader(console)
	for {
		line, err := lines.ReadString('\n')
		line = strings.ReplaceAll(line, "\r", "")
		number, ended := strings.CutPrefix(strings.TrimSpace(line), errand.Ended)
		if s, err := strconv.Atoi(number); ended && err == nil {
			status, known = s, true
		} else if _, err := io.WriteString(out, line); err != nil {
			return 0, err
		}
		switch {
		case err == nil:
		case !errors.Is(err, io.EOF):
			return 0, err
		case !known:
			return 0, errors.New("the machine ended without saying how its tests went")
		default:
			return status, nil
		}
	}
}

// prepare writes what a machine boots into a folder.
func prepare(folder string, k kernel, files archive) (machine, error) {
	m := machine{image: filepath.Join(folder, "vmlinuz"), initramfs: filepath.Join(folder, "initramfs"), memory: 1536, processors: 2}
	if err := os.WriteFile(m.image, k.image, 0o644); err != nil {
		return m, err
	}
	file, err := os.Create(m.initramfs)
	if err != nil {
		return m, err
	}
	w := bufio.NewWriter(file)
	return m, errors.Join(files.write(w), w.Flush(), file.Close())
}
