// Command groundplan runs tests of distributed systems as durable pipelines. See docs/cli.md for the manners that all of its
// commands share.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(newApp(os.Stdout, os.Stderr, os.Getenv).main(context.Background(), os.Args[1:]))
}
