// Monitor finds lag, stalls and drift, and says why.
package main

import (
	"os"
	_ "time/tzdata" // a bare container has no zones, and contracts name them

	"github.com/riskweir/riskweir/internal/command"
)

func main() {
	os.Exit(command.Main("monitor", "Look at every lane once a second, and alert. Several may run; one leads.\n\nExample: monitor --nats nats://n1:4222,nats://n2:4222 --creds monitor.creds --admin :9100", command.Monitor))
}
