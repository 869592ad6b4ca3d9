package elasticserver

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed pom.xml
var project []byte

//go:embed Server.java
var source []byte

const version = "8.17.0"

// descriptor makes the transport a module of the server, as it is in the distribution: its loader wants one.
const descriptor = `description=HTTP and transport on Netty
name=transport-netty4
classname=org.elasticsearch.transport.netty4.Netty4Plugin
java.version=17
version=` + version + `
elasticsearch.version=` + version + `
`

// cache is where the server is kept, once it is built: named by what it is built from.
func cache() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(append(append([]byte(descriptor), project...), source...))
	return filepath.Join(base, "groundplan", "elasticsearch", version+"-"+hex.EncodeToString(sum[:6])), nil
}

// build brings the server's home into the cache, where it isn't there: its jars from Maven Central, which takes minutes
// the first time, and the little program that starts it. Whoever else builds it at the same time loses nothing.
func build() (home string, err error) {
	if home, err = cache(); err != nil {
		return "", err
	}
	if _, err := os.Stat(home); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return home, err
	}
	if err := os.MkdirAll(filepath.Dir(home), 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(home), ".building-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := assemble(work); err != nil {
		return "", fmt.Errorf("building a server of Elasticsearch %s: %w", version, err)
	}
	if err := os.Rename(work, home); err != nil {
		if _, there := os.Stat(home); there != nil {
			return "", err
		}
	}
	return home, nil
}

func assemble(work string) error {
	netty := filepath.Join(work, "modules", "transport-netty4")
	for _, folder := range []string{netty, filepath.Join(work, "config"), filepath.Join(work, "plugins"), filepath.Join(work, "classes")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	for path, content := range map[string][]byte{
		"pom.xml": project, "Server.java": source, "config/elasticsearch.yml": nil,
		"modules/transport-netty4/plugin-descriptor.properties": []byte(descriptor),
	} {
		if err := os.WriteFile(filepath.Join(work, path), content, 0o644); err != nil {
			return err
		}
	}
	lib := filepath.Join(work, "lib")
	if err := command(work, "mvn", "--quiet", "--batch-mode", "dependency:copy-dependencies", "-DoutputDirectory="+lib); err != nil {
		return err
	}
	if err := command(work, "javac", "-cp", filepath.Join(lib, "*"), "-d", "classes", "Server.java"); err != nil {
		return err
	}
	jars, err := os.ReadDir(lib)
	if err != nil {
		return err
	}
	for _, jar := range jars {
		// A jar must not be both the server's and a module's.
		if strings.Contains(jar.Name(), "netty") {
			if err := os.Rename(filepath.Join(lib, jar.Name()), filepath.Join(netty, jar.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func command(folder, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}
