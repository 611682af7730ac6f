package events

import (
	"fmt"
	"strings"
	"testing"
)

const reasonsContract = `
kind: payment
version: 2
entity: card
fields:
  - {name: amount, type: money, currency: EUR, sign: "+", code: HIGH_AMOUNT}
  - {name: known device, type: bool, sign: "-"}
  - {name: 3ds, type: category}
memory:
  features:
    - {name: n_1h, by: card, take: count, window: 1h, sign: "+", code: MANY_PAYMENTS}
reasons:
  version: 4
  texts:
    en: {HIGH_AMOUNT: The amount is high}
    de: {HIGH_AMOUNT: Der Betrag ist hoch}
    de-CH: {MANY_PAYMENTS: Viele Zahlungen}
`

func TestReasonCodesAndTexts(t *testing.T) {
	c, err := ParseContract([]byte(reasonsContract))
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, f := range c.Inputs() {
		codes = append(codes, ReasonCode(f)+f.Sign)
	}
	if got := strings.Join(codes, " "); got != "HIGH_AMOUNT+ KNOWN_DEVICE- F3DS MANY_PAYMENTS+" {
		t.Errorf("codes %s", got)
	}
	if code := ReasonCode(Field{Name: strings.Repeat("ä-x", 30)}); CheckReasonCode(code) != nil {
		t.Errorf("made of a strange name: %s", code)
	}
	for _, x := range []struct{ language, code, want string }{
		{"en", "HIGH_AMOUNT", "The amount is high"}, {"de", "HIGH_AMOUNT", "Der Betrag ist hoch"}, {"de-CH", "HIGH_AMOUNT", "Der Betrag ist hoch"},
		{"de-CH", "MANY_PAYMENTS", "Viele Zahlungen"}, {"de", "MANY_PAYMENTS", ""}, {"fr", "HIGH_AMOUNT", ""},
	} {
		if got, ok := c.Reasons.Text(x.language, x.code); got != x.want || ok != (x.want != "") {
			t.Errorf("%s %s: %q", x.language, x.code, got)
		}
	}
	if _, ok := (*Reasons)(nil).Text("en", "HIGH_AMOUNT"); ok {
		t.Error("a contract without texts has one")
	}
	text, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseContract(text)
	if err != nil || fmt.Sprint(again.Reasons) != fmt.Sprint(c.Reasons) || again.Fields[0].Code != "HIGH_AMOUNT" || again.Memory.Features[0].Sign != "+" {
		t.Errorf("written and read: %v\n%s", err, text)
	}
	for _, x := range []struct{ from, to, want string }{
		{`type: bool, sign: "-"`, `type: bool, sign: "~"`, "want + or -"},
		{"type: category}", `type: category, sign: "+"}`, "is not more or less"},
		{"code: HIGH_AMOUNT", "code: high", "want a capital"},
		{"code: HIGH_AMOUNT", "code: WITHHELD", "stands for sensitive fields"},
		{"code: MANY_PAYMENTS", "code: HIGH_AMOUNT", "a reason must tell them apart"},
		{"version: 4", "version: 0", "want 1 or more"},
		{"de-CH", "Swiss", "language"},
		{"Viele Zahlungen", `"a\nb"`, "want a line"},
		{"Viele Zahlungen", strings.Repeat("x", MaxReasonText+1), "want a line"},
		{"{MANY_PAYMENTS:", "{many:", "want a capital"},
	} {
		if _, err := ParseContract([]byte(strings.Replace(reasonsContract, x.from, x.to, 1))); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", x.to, err, x.want)
		}
	}
	next, err := ParseContract([]byte(strings.NewReplacer("version: 4", "version: 5", "Der Betrag", "Die Summe", `code: HIGH_AMOUNT`, "code: SUM", `window: 1h, sign: "+"`, `window: 1h`).Replace(reasonsContract)))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(DiffContracts(c, next), "\n"), `memory feature n_1h sign: + -> none
reasons.version: 4 -> 5
reasons.de.HIGH_AMOUNT: Der Betrag ist hoch -> Die Summe ist hoch
field amount code: HIGH_AMOUNT -> SUM`; got != want {
		t.Errorf("diff:\n%s\nwant\n%s", got, want)
	}
	if err := Compatible(c, next, func(string) bool { return true }); err != nil {
		t.Errorf("signs, codes and texts change nothing of what a model reads: %v", err)
	}
}
