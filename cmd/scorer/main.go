// Scorer competes for the lanes of every declared kind and turns their events into scores.
package main

import (
	"os"
	_ "time/tzdata" // a bare container has no zones, and contracts name them

	"github.com/riskweir/riskweir/internal/command"
)

func main() {
	os.Exit(command.Main("scorer", "Score the events of every declared kind.\n\nExample: scorer --nats nats://n1:4222,nats://n2:4222 --creds scorer.creds --admin :9100", command.Scorer))
}
