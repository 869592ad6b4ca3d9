// Package sdk is for the programs that groundplan runs: the instances of a test.
//
// A plan is a program whose main calls Main with its cases. Main reads what the instance was started with, joins the
// other instances, runs the case that was asked for, and reports how it ended:
//
//	func main() {
//		sdk.Main(map[string]sdk.Case{"lookup": lookup})
//	}
//
//	func lookup(ctx context.Context, run *sdk.Run) error {
//		peers, err := sdk.Param[int](run, "peers")
//		if err != nil {
//			return err
//		}
//		…
//		_, err = run.SignalAndWait(ctx, "ready", run.Instances)
//		return err
//	}
//
// Instances work together through the sync service: states, which they signal and wait for (Run.Signal, Run.Barrier),
// and topics, which they publish to and read from the first item on (Topic). What they measure goes to Run.Results, and
// what they did when, as spans of traces, is noted by Run.Span.
//
// The same program runs under Testground: it reads that environment and speaks that protocol.
package sdk
