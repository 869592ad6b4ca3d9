// Package worker is what carries runs: it finds or starts the services (Temporal, embedded unless an address is named),
// runs the worker that carries out workflows and activities, and gives commands a Session to start, watch, cancel and
// resume runs with.
//
// At most one process per home is the owner: it holds a lock beside the database and runs the worker and, unless
// Temporal is external, the embedded services. Every other session uses what the owner runs. When the owner ends or is
// killed, one of the sessions that are left takes over, and the runs go on.
package worker
