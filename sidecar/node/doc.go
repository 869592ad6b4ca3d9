// Package node is a cluster node's agent, and the client that speaks with it. The agent starts one sidecar per run on its
// node, as a process of its own, starts it again when it dies, and passes calls on to it; it hands over what the run's
// instances on this node have written. It holds nothing that is not in its state folder, so that it, too, may die.
//
// It speaks HTTP with JSON bodies on a port of the node's loopback, which the worker reaches by the API server's
// port-forward. Every call bears the agent's token (Authorization: Bearer …), and every call converges.
//
//	GET    /v1/node                                → Info      what this node is, and which runs it holds
//	PUT    /v1/runs/{run}              Ask         → Status    starts the run's sidecar where it isn't there; control.Status
//	*      /v1/runs/{run}/control/v1/…                         the sidecar's own routes (package control)
//	GET    /v1/runs/{run}/archive      ?only=outputs|records&group=G&index=N  → tar
//	DELETE /v1/runs/{run}                          → {}        releases the run here, and forgets all of it
//	GET    /healthz                                → {}        for the kubelet, without a token
//
// What is refused is answered as package control does it: a status of 400 and above and {"error": "one sentence"}. 401 is a
// wrong token, 502 a sidecar that doesn't answer (never started here, or just being started again: ask again), 503 one that
// doesn't come up, with what it said.
//
// The archive is a tar stream with the paths of a run's folder:
//
//	outputs/<group>/<index>/…     what the instances on this node have written; of a file that grows meanwhile, what it
//	                              had when it was opened
//	stages/…, events.jsonl, sidecar.log   this node's part of the run's records
//	archive.json                  Manifest: always the last entry, so that a stream without it is cut short
//
// Instances write what they like. Only regular files are handed over; links, sockets and devices are left out and named in
// the manifest, and no link leads out of an instance's folder.
//
// The state folder has, per run, runs/<run>/ laid out as every run's folder (package runs), and in it agent.json (what the
// agent was asked, and whether the run has been released) and instances.json (which instances are on this node). Where a
// run has been released because nobody called for the idle limit, its records stay for Options.Keep.
package node
