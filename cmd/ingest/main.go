// Ingest takes events and labels in over HTTP.
package main

import (
	"os"
	_ "time/tzdata" // a bare container has no zones, and contracts name them

	"github.com/riskweir/riskweir/internal/command"
)

func main() {
	os.Exit(command.Main("ingest", "Take events and labels in over HTTP, and answer only when the broker has them.\n\nExample: ingest --listen :8080 --nats nats://n1:4222,nats://n2:4222 --creds ingest.creds", command.Ingest))
}
