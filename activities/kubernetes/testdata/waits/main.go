// Command waits is an instance for tests: for an hour in the case long, and not at all in any other.
package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	fmt.Println("the case is", os.Getenv("TEST_CASE"))
	if os.Getenv("TEST_CASE") == "long" {
		time.Sleep(time.Hour)
	}
}
