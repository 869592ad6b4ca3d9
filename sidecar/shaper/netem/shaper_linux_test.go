package netem

import (
	"strings"
	"testing"

	"github.com/groundplan/groundplan/sidecar/shaper/conformance"
)

func TestMain(m *testing.M) { conformance.Main(m) }

func TestSupportedSaysWhatIsMissing(t *testing.T) {
	conformance.AsSidecar(t, func(t *testing.T) {
		if err := Supported(); err != nil && !strings.Contains(err.Error(), "(sch_netem)") {
			t.Errorf("neither can it be had nor is netem what is missing: %v", err)
		}
	})
}
