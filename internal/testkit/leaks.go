package testkit

import "go.uber.org/goleak"

// VerifyTestMain runs the tests of a package and fails if one left a goroutine behind.
//
// One of the broker's is let off: a stream that copies another (ROLLOUTS) waits up to 30 s for the consumer that it asked for, and goes on
// waiting when its server is shut down meanwhile (nats-server 2.15.2, stream.go, trySetupSourceConsumer).
func VerifyTestMain(m goleak.TestingM) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*stream).trySetupSourceConsumer.func3"))
}
