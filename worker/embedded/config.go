package embedded

import (
	"net"
	"time"

	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives"
)

// clusterID never changes: a database remembers the one that it was made with and refuses another.
const (
	clusterName = "active"
	clusterID   = "6f1d9c0e-8a55-4a6b-9d3a-64d8f2a5b1c7"
)

// services are those that run, the frontend first. The internal frontend is the one that the server's own workers use:
// it asks for no token, but for the certificate that only this process has.
var services = []primitives.ServiceName{
	primitives.FrontendService,
	primitives.InternalFrontendService,
	primitives.HistoryService,
	primitives.MatchingService,
	primitives.WorkerService,
}

func serviceNames() []string {
	var names []string
	for _, s := range services {
		names = append(names, string(s))
	}
	return names
}

func serverConfig(database *config.SQL, addresses []*net.TCPAddr, internal config.GroupTLS) *config.Config {
	c := &config.Config{
		Services: map[string]config.Service{},
		Persistence: config.Persistence{
			DefaultStore:     sqliteplugin.PluginName,
			VisibilityStore:  sqliteplugin.PluginName,
			NumHistoryShards: 1,
			DataStores:       map[string]config.DataStore{sqliteplugin.PluginName: {SQL: database}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName,
			CurrentClusterName:       clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{
				clusterName: {
					Enabled:                true,
					InitialFailoverVersion: 1,
					RPCAddress:             addresses[0].String(),
					ClusterID:              clusterID,
				},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Archival: config.Archival{
			History:    config.HistoryArchival{State: "disabled"},
			Visibility: config.VisibilityArchival{State: "disabled"},
		},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: "disabled"},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: "disabled"},
		}},
	}
	c.Global.Membership = config.Membership{MaxJoinDuration: 30 * time.Second, BroadcastAddress: "127.0.0.1"}
	c.Global.TLS.Internode = internal
	for i, service := range services {
		c.Services[string(service)] = config.Service{RPC: config.RPC{GRPCPort: addresses[i].Port, BindOnLocalHost: true}}
	}
	return c
}

// tuning is for one shard on one machine: the defaults are meant for thousands of shards on many.
func tuning() dynamicconfig.StaticClient {
	return dynamicconfig.StaticClient{
		// Per shard, and there is one: the defaults of 20 a second put 50 ms under every task.
		dynamicconfig.TransferProcessorMaxPollRPS.Key():   2000,
		dynamicconfig.TimerProcessorMaxPollRPS.Key():      2000,
		dynamicconfig.VisibilityProcessorMaxPollRPS.Key(): 2000,
		dynamicconfig.OutboundProcessorMaxPollRPS.Key():   2000,
		// Allows for clocks that differ; there is one. With the default of a second a retry after 1 ms comes a second late.
		dynamicconfig.TimerProcessorMaxTimeShift.Key(): 20 * time.Millisecond,
		// One partition per queue: a task never waits in one for a poller of another.
		dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  1,
		dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): 1,
		// One user: limits that protect tenants from each other are only in the way.
		dynamicconfig.FrontendRPS.Key():                                  20000,
		dynamicconfig.FrontendMaxNamespaceRPSPerInstance.Key():           20000,
		dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 2000,
		dynamicconfig.VisibilityPersistenceMaxReadQPS.Key():              20000,
		dynamicconfig.VisibilityPersistenceMaxWriteQPS.Key():             20000,
		dynamicconfig.FrontendPersistenceMaxQPS.Key():                    20000,
		dynamicconfig.HistoryPersistenceMaxQPS.Key():                     50000,
		dynamicconfig.MatchingPersistenceMaxQPS.Key():                    20000,
		// Cancellation is pushed to the worker instead of waiting for a heartbeat (12–38 ms instead of half a second).
		dynamicconfig.EnableCancelActivityWorkerCommand.Key(): true,
		dynamicconfig.WorkerCommandsEnabled.Key():             true,
		dynamicconfig.EnableCancelWorkerPollsOnShutdown.Key(): true,
		// Who waits for the end of a run is told by a notice that is dropped when another one comes at the same moment
		// (seen in one of a hundred short runs). Without one it is looked up after this.
		dynamicconfig.HistoryLongPollExpirationInterval.Key(): 500 * time.Millisecond,
		// Nobody balances traffic away from a frontend that stops.
		dynamicconfig.FrontendShutdownDrainDuration.Key():           time.Duration(0),
		dynamicconfig.FrontendShutdownFailHealthCheckDuration.Key(): time.Duration(0),
		dynamicconfig.MatchingShutdownDrainDuration.Key():           time.Duration(0),
		dynamicconfig.HistoryShutdownDrainDuration.Key():            time.Duration(0),
	}
}
