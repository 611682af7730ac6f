package main

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite testdata/tutorial")

const tutorialData = "../../testdata/tutorial"

// The files of the tutorial are made up, and this is how.
func TestTutorialData(t *testing.T) {
	t.Parallel()
	past, next, outcomes := loans()
	for name, want := range map[string][]byte{"past.csv": past, "new.csv": next, "outcomes.csv": outcomes} {
		file := filepath.Join(tutorialData, name)
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v (make it with -update)", err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what this test makes; make it with -update", name)
		}
	}
}

const (
	pastLoans = 3000 // a row with its outcome each
	newLoans  = 800  // without; one of them is broken
)

// loans are applications for loans, from 2025-01-02 on, some two hours apart. A loan is not paid back with the probability of a
// logistic regression, so that one can find it again.
func loans() (past, next, outcomes []byte) {
	r := rand.New(rand.NewPCG(1, 1))
	var p, n, o bytes.Buffer
	const columns = "application,applied_at,applicant,amount,months,income,employed_years,purpose,home,open_loans,age"
	fmt.Fprintf(&p, "%s,default\n", columns)
	fmt.Fprintf(&n, "%s\n", columns)
	fmt.Fprintf(&o, "id,label,known_at\n")
	at := time.Date(2025, 1, 2, 8, 0, 0, 0, time.UTC)
	for i := range pastLoans + newLoans {
		at = at.Add(time.Duration(r.IntN(240)) * time.Minute)
		income := 1200 + 200*math.Floor(r.ExpFloat64()*9)
		amount := 500 * (1 + math.Floor(r.ExpFloat64()*12))
		months := 12 * (1 + r.IntN(6))
		age := 19 + r.IntN(56)
		employed := r.IntN(min(age-17, 25))
		purpose := []string{"car", "furniture", "repair", "holiday", "debts"}[r.IntN(5)]
		home := []string{"rents", "rents", "owns", "family"}[r.IntN(4)]
		open := r.IntN(5)

		burden := amount / float64(months) / income
		logit := -3.2 + 6*burden - 0.1*float64(employed) + 0.35*float64(open)
		if purpose == "debts" {
			logit += 1.2
		}
		if home == "owns" {
			logit -= 1
		}
		lost := r.Float64() < 1/(1+math.Exp(-logit))

		years := fmt.Sprint(employed)
		if r.IntN(20) == 0 {
			years = ""
		}
		row := fmt.Sprintf("L-%04d,%s,c%d,%.2f,%d,%.0f,%s,%s,%s,%d,%d", i+1, at.Format(time.RFC3339), 1+r.IntN(2500), amount, months, income, years, purpose, home, open, age)
		switch {
		case i < pastLoans:
			fmt.Fprintf(&p, "%s,%s\n", row, map[bool]string{false: "no", true: "yes"}[lost])
		case i == pastLoans+99:
			fmt.Fprintf(&n, "L-%04d,%s,c17,five thousand,24,2400,3,car,rents,0,44\n", i+1, at.Format(time.RFC3339))
		default:
			fmt.Fprintf(&n, "%s\n", row)
			if i < pastLoans+400 {
				fmt.Fprintf(&o, "L-%04d,%d,%s\n", i+1, map[bool]int{true: 1}[lost], at.AddDate(0, 2, 0).Format(time.RFC3339))
			}
		}
	}
	return p.Bytes(), n.Bytes(), o.Bytes()
}
