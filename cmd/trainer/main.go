// Trainer learns from labels as they arrive and publishes model versions.
package main

import (
	"os"
	_ "time/tzdata" // a bare container has no zones, and contracts name them

	"github.com/riskweir/riskweir/internal/command"
)

func main() {
	os.Exit(command.Main("trainer", "Learn from labels as they arrive and publish model versions. Several may run; one leads.\n\nExample: trainer --nats nats://n1:4222,nats://n2:4222 --creds trainer.creds", command.Trainer))
}
