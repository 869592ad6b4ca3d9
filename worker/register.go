package worker

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	sdkworker "go.temporal.io/sdk/worker"

	"github.com/groundplan/groundplan/activities"
	"github.com/groundplan/groundplan/activities/artifacts"
	"github.com/groundplan/groundplan/activities/elasticsearch"
	"github.com/groundplan/groundplan/activities/export"
	"github.com/groundplan/groundplan/activities/kubernetes"
	"github.com/groundplan/groundplan/activities/local"
	"github.com/groundplan/groundplan/activities/notify"
	"github.com/groundplan/groundplan/workflows"
)

// registerAll adds groundplan's own workflows and activities.
func registerAll(config Config, registry sdkworker.Registry) error {
	cluster, err := onKubernetes(config)
	if err != nil {
		return err
	}
	headers, err := export.ParseHeaders(config.OTLPHeaders)
	if err != nil {
		return fmt.Errorf("otlp-headers: %w", err)
	}
	workflows.Register(registry)
	activities.Register(registry, &activities.Activities{
		Home: config.Home,
		Grounds: map[string]activities.Ground{
			GroundLocal:      local.New(local.Options{Home: config.Home, Redis: config.Redis, Log: config.Log}),
			GroundKubernetes: cluster,
		},
		Builder:       artifacts.New(config.Home.Artifacts()),
		Versions:      Versions(),
		Elasticsearch: logServer(config),
		Exports:       export.Targets{Prometheus: config.Prometheus, OTLP: config.OTLP, Headers: headers},
	})
	activities.RegisterSuites(registry, &activities.Suites{
		Home: config.Home, Secrets: notify.Secrets{Home: config.Home, Getenv: os.LookupEnv},
	})
	return nil
}

// logServer is the Elasticsearch that collect stages push to.
func logServer(config Config) elasticsearch.Server {
	return elasticsearch.Server{
		URL: config.Elasticsearch, APIKey: config.ElasticsearchKey, User: config.ElasticsearchUser, Password: config.ElasticsearchPassword,
		CA: config.ElasticsearchCA,
	}
}

// ExamineElasticsearch asks the server that logs are pushed to whether it is there and knows the account.
func ExamineElasticsearch(ctx context.Context, config Config) error {
	return logServer(config).Examine(ctx)
}

// ExamineCluster looks at the cluster that runs on Kubernetes would go to, and says what it found or what keeps runs from
// it.
func ExamineCluster(ctx context.Context, config Config) (string, error) {
	cluster, err := onKubernetes(config)
	if err != nil {
		return "", err
	}
	return cluster.Examine(ctx)
}

// onKubernetes is the ground that is a cluster. It connects to none before a run asks for it.
func onKubernetes(config Config) (*kubernetes.Ground, error) {
	o := kubernetes.Options{
		Home: config.Home, Context: config.KubeContext, Namespace: config.KubeNamespace, SystemNamespace: config.KubeSystemNamespace,
		Registry: config.Registry, Log: config.Log,
	}
	var err error
	if config.KubeNodeSelector != "" {
		if o.NodeSelector, err = kubernetes.ParseNodeSelector(config.KubeNodeSelector); err != nil {
			return nil, err
		}
	}
	if config.KubeTolerations != "" {
		if o.Tolerations, err = kubernetes.ParseTolerations(config.KubeTolerations); err != nil {
			return nil, err
		}
	}
	return kubernetes.New(o), nil
}

// Versions names what a run is made with: groundplan, go, temporal (the embedded server's) and kernel.
func Versions() map[string]string {
	versions := map[string]string{"groundplan": "(devel)", "go": runtime.Version()}
	if release := kernel(); release != "" {
		versions["kernel"] = release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return versions
	}
	if info.Main.Version != "" {
		versions["groundplan"] = info.Main.Version
	}
	for _, module := range info.Deps {
		if module.Path == "go.temporal.io/server" {
			versions["temporal"] = module.Version
		}
	}
	return versions
}
