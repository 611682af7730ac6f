package command

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/choria-io/fisk"
)

// UsageError is what app.Parse said of args, with the name and the value of the flag or argument at fault, which it does not say.
func UsageError(app *fisk.Application, args []string, err error) error {
	parsed, parseErr := app.ParseContext(args)
	if parseErr != nil {
		return err // it is not about a value
	}
	for _, e := range parsed.Elements {
		if e.Value == nil {
			continue
		}
		name, value := "", fisk.Value(nil)
		switch c := e.Clause.(type) {
		case *fisk.FlagClause:
			m := c.Model()
			name, value = "--"+m.Name, m.Value
		case *fisk.ArgClause:
			m := c.Model()
			name, value = m.Name, m.Value
		}
		if value == nil {
			continue
		}
		if cause := value.Set(*e.Value); cause != nil {
			return fmt.Errorf("%s %q: %w", name, *e.Value, plainly(cause))
		}
	}
	return err
}

// plainly says of a number what strconv says for programmers.
func plainly(err error) error {
	var bad *strconv.NumError
	switch {
	case !errors.As(err, &bad):
		return err
	case errors.Is(bad.Err, strconv.ErrRange):
		return errors.New("is too large")
	}
	return errors.New("want a number")
}
