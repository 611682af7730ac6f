package command

import (
	"errors"

	"github.com/riskweir/riskweir/internal/model"
)

// Keys are the flags that say who signs models, and whose signatures count.
type Keys struct {
	signing  string
	trust    []string
	unsigned bool
}

// TrustFlags of what serves models.
func (k *Keys) TrustFlags(f Flags) {
	f.Flag("trust-key", "Public key whose models are served, U..., or a file of such; may be repeated").PlaceHolder("KEY|FILE").Envar("RISKWEIR_TRUST_KEY").SetValue(List(&k.trust))
	f.Flag("unsigned-models", "Look at no signature: whoever may write to MODELS decides what is scored with").Envar("RISKWEIR_UNSIGNED_MODELS").UnNegatableBoolVar(&k.unsigned)
}

// SigningFlags of what publishes models too.
func (k *Keys) SigningFlags(f Flags) {
	k.TrustFlags(f)
	f.Flag("signing-key", "File with the seed of the nkey that signs models").PlaceHolder("FILE").Envar("RISKWEIR_SIGNING_KEY").StringVar(&k.signing)
}

// Default takes files for what was not given.
func (k *Keys) Default(signing, trust string) {
	if k.unsigned {
		return
	}
	if k.signing == "" {
		k.signing = signing
	}
	if len(k.trust) == 0 && trust != "" {
		k.trust = []string{trust}
	}
}

// Trust is nil if no signature is to be looked at, which must have been said.
func (k *Keys) Trust() (*model.Trust, error) {
	switch {
	case k.unsigned && len(k.trust) > 0:
		return nil, errors.New("--unsigned-models and --trust-key are not for the same time: either signatures count, or they do not")
	case k.unsigned:
		return nil, nil
	case len(k.trust) == 0:
		return nil, errors.New("whose models may be served? --trust-key U... (or a file of public keys), as 'riskweir model key' prints it; --unsigned-models looks at no signature")
	}
	return model.ReadTrust(k.trust...)
}

// Signer is nil if nothing is to be signed, which must have been said. What it signs is trusted too.
func (k *Keys) Signer() (*model.Signer, *model.Trust, error) {
	if k.signing == "" {
		if !k.unsigned {
			return nil, nil, errors.New("who signs the models? --signing-key FILE, as 'riskweir model key FILE' makes it; --unsigned-models signs none")
		}
		trust, err := k.Trust()
		return nil, trust, err
	}
	if k.unsigned {
		return nil, nil, errors.New("--unsigned-models and --signing-key are not for the same time")
	}
	signer, err := model.ReadSigner(k.signing)
	if err != nil {
		return nil, nil, err
	}
	trust, err := k.ifAny()
	if err != nil {
		return nil, nil, err
	}
	if trust, err = trust.With(signer); err != nil {
		return nil, nil, err
	}
	return signer, trust, nil
}

// IfAny is Trust for those who only look: nil if nothing is said.
func (k *Keys) IfAny() (*model.Trust, error) {
	if k.unsigned {
		return k.Trust()
	}
	return k.ifAny()
}

func (k *Keys) ifAny() (*model.Trust, error) {
	if len(k.trust) == 0 {
		return nil, nil
	}
	return model.ReadTrust(k.trust...)
}
