package images

import (
	"archive/tar"
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Nobody is who programs run as: not root, and a number, so that a cluster can tell without looking into the image.
const Nobody = "65532:65532"

// File is a file or folder of an image, owned by root.
type File struct {
	// Path is below the image's root, without a slash at its beginning. The folders above it needn't be named.
	Path string
	// Mode has fs.ModeDir for a folder, fs.ModeSticky for one like /tmp, and permissions.
	Mode fs.FileMode
	// From is the file on this machine whose content it gets; empty: Content.
	From    string
	Content string
}

// Base is what programs expect of a system before they do anything of their own: a user with a name, and a /tmp.
// Certificates are not among it: instances reach nothing that would have one, and this machine's would change the digest.
func Base() []File {
	return []File{
		{Path: "etc/group", Mode: 0o644, Content: "root:x:0:\nplan:x:65532:\n"},
		{Path: "etc/nsswitch.conf", Mode: 0o644, Content: "hosts: files dns\n"},
		{Path: "etc/passwd", Mode: 0o644, Content: "root:x:0:0:root:/:/sbin/nologin\nplan:x:65532:65532:plan:/tmp:/sbin/nologin\n"},
		{Path: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	}
}

// Build makes an image of one layer. The same files give the same digest, whatever machine and time it is: entries are
// sorted, have no times and no names of owners.
func Build(platform v1.Platform, files []File, config v1.Config) (v1.Image, error) {
	files = withFolders(files)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return stream(files), nil }, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{
		Layer:   layer,
		History: v1.History{CreatedBy: "groundplan"},
	})
	if err != nil {
		return nil, err
	}
	described, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	described = described.DeepCopy()
	described.OS, described.Architecture, described.Variant = platform.OS, platform.Architecture, platform.Variant
	described.Created, described.Config = v1.Time{Time: time.Unix(0, 0).UTC()}, config
	image, err = mutate.ConfigFile(image, described)
	if err != nil {
		return nil, err
	}
	return mutate.ConfigMediaType(image, types.OCIConfigJSON), nil
}

// withFolders adds the folders above the files, and sorts: a folder comes before what is in it.
func withFolders(files []File) []File {
	known := map[string]bool{".": true}
	for _, f := range files {
		known[f.Path] = true
	}
	all := slices.Clone(files)
	for _, f := range files {
		for above := path.Dir(f.Path); !known[above]; above = path.Dir(above) {
			known[above] = true
			all = append(all, File{Path: above, Mode: fs.ModeDir | 0o755})
		}
	}
	slices.SortFunc(all, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

// stream is the archive of the files, written as it is read: programs are too large to be held in memory.
func stream(files []File) io.ReadCloser {
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(write(writer, files)) }()
	return reader
}

func write(to io.Writer, files []File) error {
	archive := tar.NewWriter(to)
	for _, f := range files {
		if err := f.write(archive); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return archive.Close()
}

func (f File) write(archive *tar.Writer) error {
	header := tar.Header{Typeflag: tar.TypeReg, Name: f.Path, Mode: int64(f.Mode.Perm()), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if f.Mode&fs.ModeSticky != 0 {
		header.Mode |= 0o1000
	}
	switch {
	case f.Mode.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, f.Path+"/"
		return archive.WriteHeader(&header)
	case f.From == "":
		header.Size = int64(len(f.Content))
		if err := archive.WriteHeader(&header); err != nil {
			return err
		}
		_, err := io.WriteString(archive, f.Content)
		return err
	}
	from, err := os.Open(f.From)
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	header.Size = info.Size()
	if err := archive.WriteHeader(&header); err != nil {
		return err
	}
	_, err = io.CopyN(archive, from, info.Size())
	return err
}
