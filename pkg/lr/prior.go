package lr

// PriorShift returns what to add to the log-odds of a model that was fitted to rows with
// another share of positives than the population has, because one class was drawn more
// often (King and Zeng, Political Analysis 9, 2001, equation 7):
//
//	ln(population/(1-population)) - ln(sample/(1-sample))
//
// Sampling by the label changes only the intercept, so this mends the model completely;
// see [Model.Shift]. Both shares must lie between 0 and 1.
func PriorShift(sample, population float64) (float64, error) {
	if err := checkShare("sample", sample); err != nil {
		return 0, err
	}
	if err := checkShare("population", population); err != nil {
		return 0, err
	}
	return logOdds(population) - logOdds(sample), nil
}

// KeptShift is [PriorShift] from the shares of the positive and negative rows that
// were kept: ln(negatives/positives). With all positives and a tenth of the negatives,
// KeptShift(1, 0.1) = -2.3. Both must be above 0 and at most 1.
func KeptShift(positives, negatives float64) (float64, error) {
	for _, kept := range []struct {
		what  string
		share float64
	}{{"positives", positives}, {"negatives", negatives}} {
		if !(kept.share > 0 && kept.share <= 1) {
			return 0, &OptionError{Option: kept.what, Value: kept.share, Want: "above 0 and at most 1"}
		}
	}
	return Log(negatives) - Log(positives), nil
}

// PriorWeights returns the weights of positive and negative rows that give a sample the
// share of positives of the population (King and Zeng's weighting, equation 8):
// population/sample and (1-population)/(1-sample). Unlike a shift it also holds when the
// model's form is wrong, at the price of larger standard errors.
func PriorWeights(sample, population float64) (positive, negative float64, err error) {
	if err := checkShare("sample", sample); err != nil {
		return 0, 0, err
	}
	if err := checkShare("population", population); err != nil {
		return 0, 0, err
	}
	return population / sample, (1 - population) / (1 - sample), nil
}

// Shift returns the model with its log-odds moved by add, such as a [PriorShift]. It
// shares Weights with m.
func (m Model) Shift(add float64) Model {
	m.Intercept += add
	return m
}

func logOdds(p float64) float64 { return Log(p) - Log1p(-p) }

func checkShare(what string, p float64) error {
	if !(p > 0 && p < 1) {
		return &OptionError{Option: what, Value: p, Want: "above 0 and below 1"}
	}
	return nil
}
