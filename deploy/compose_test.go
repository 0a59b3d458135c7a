package deploy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func loadCompose(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"compose.yaml"}, cli.WithConsistency(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// TestCompose: the API is reached through Warder alone, both are hardened, and
// everything that it takes is in the repository.
func TestCompose(t *testing.T) {
	project := loadCompose(t)
	warder, api := project.Services["warder"], project.Services["api"]
	if len(project.Services) != 2 || len(api.Ports) > 0 || len(api.Networks) != 1 || !project.Networks["behind"].Internal {
		t.Errorf("the API behind has ports %v and networks %v", api.Ports, api.Networks)
	}
	if _, behind := api.Networks["behind"]; !behind {
		t.Errorf("the API behind is on %v", api.Networks)
	}
	if len(warder.Ports) != 1 || warder.Ports[0].Target != 8080 || warder.Ports[0].HostIP != "127.0.0.1" {
		t.Errorf("the gate is published as %v", warder.Ports)
	}
	for name, s := range project.Services {
		if !s.ReadOnly || s.Privileged || !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 ||
			!slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.MemLimit == 0 || s.CPUS == 0 {
			t.Errorf("%s is not hardened: %+v", name, s)
		}
		if s.Build == nil || s.Image != "" {
			t.Errorf("%s takes an image that is not built here", name)
			continue
		}
		exists(t, filepath.Join(s.Build.Context, "Dockerfile"))
		for _, directory := range s.Tmpfs {
			if !strings.HasSuffix(directory, ":mode=1777") {
				t.Errorf("%s may not write to %s", name, directory)
			}
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				exists(t, v.Source)
			}
		}
	}
	if grace := warder.Environment["WARDER_GRACE_PERIOD"]; grace == nil || warder.StopGracePeriod == nil {
		t.Error("nothing is said of a grace period")
	} else if given, err := time.ParseDuration(*grace); err != nil || given >= time.Duration(*warder.StopGracePeriod) {
		t.Errorf("what is being answered for %s is cut off after %s: %v", *grace, warder.StopGracePeriod, err)
	}
}

func exists(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Stat(name); err != nil {
		t.Error(err)
	}
}
