package trainer

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/micro"
	"go.uber.org/zap"
)

// TrainSubject takes a kind, as text or as {"kind":"payment"}, and answers with an Outcome in JSON once a model has been
// trained, or with the reason why not. Only the trainer that leads answers: without one the request gets no answer.
const TrainSubject = "riskweir.trainer.train"

// ServiceName of the trainer's micro service, and its version.
const (
	ServiceName    = "riskweir-trainer"
	serviceVersion = "0.1.0"
)

// Endpoints is the part of a micro.Service that the trainer needs.
type Endpoints interface {
	AddEndpoint(name string, handler micro.Handler, opts ...micro.EndpointOpt) error
}

// ask is one request to train.
type ask struct {
	kind   string
	answer func(Outcome, error)
}

// serve adds the endpoint. stop ends what serve began.
func (t *Trainer) serve() (stop func() error, err error) {
	service, stop := t.cfg.Service, func() error { return nil }
	if service == nil {
		own, err := micro.AddService(t.cfg.Conn, micro.Config{
			Name: ServiceName, Version: serviceVersion, Description: "learns models from events and labels",
			Metadata: map[string]string{"instance": t.cfg.Instance},
		})
		if err != nil {
			return nil, fmt.Errorf("add the micro service: %w", err)
		}
		service, stop = own, own.Stop
	}
	err = service.AddEndpoint("train", micro.HandlerFunc(t.handleTrain),
		micro.WithEndpointSubject(TrainSubject),
		micro.WithEndpointQueueGroupDisabled(), // every trainer hears it, so that the one that leads does
		micro.WithEndpointMetadata(map[string]string{"request": `payment, or {"kind":"payment"}`, "response": "application/json"}))
	if err != nil {
		return nil, fmt.Errorf("add endpoint train: %w", err)
	}
	return stop, nil
}

func (t *Trainer) handleTrain(req micro.Request) {
	if !t.leads.Load() {
		return
	}
	kind, err := askedKind(req.Data())
	if err != nil {
		t.respond(req.Error("400", err.Error(), nil))
		return
	}
	a := ask{kind: kind, answer: func(o Outcome, err error) {
		if err != nil {
			t.respond(req.Error("500", err.Error(), nil))
			return
		}
		t.respond(req.RespondJSON(o))
	}}
	select {
	case t.asks <- a:
	default:
		t.respond(req.Error("429", "too many requests to train are waiting: ask again", nil))
	}
}

func (t *Trainer) respond(err error) {
	if err != nil {
		t.log.Warn("answer a request to train", zap.Error(err))
	}
}

func askedKind(body []byte) (string, error) {
	text := strings.TrimSpace(string(body))
	if !strings.HasPrefix(text, "{") {
		if text == "" {
			return "", fmt.Errorf(`want a kind, such as payment or {"kind":"payment"}`)
		}
		return text, nil
	}
	var in struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(body, &in); err != nil || in.Kind == "" {
		return "", fmt.Errorf(`want {"kind":"payment"}: %s`, text)
	}
	return in.Kind, nil
}
