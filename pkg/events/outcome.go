package events

import "errors"

var errSkeleton = errors.New("being written")

func (s *Score) Append(dst []byte, enc Encoding) []byte        { return dst }
func (s *Invalid) Append(dst []byte, enc Encoding) []byte      { return dst }
func (x *Expired) Append(dst []byte) []byte                    { return dst }
func (l *Label) Append(dst []byte, enc Encoding) []byte        { return dst }
func DecodeScore(body []byte) (Score, error)                   { return Score{}, errSkeleton }
func DecodeInvalid(body []byte) (Invalid, error)               { return Invalid{}, errSkeleton }
func DecodeExpired(body []byte) (Expired, error)               { return Expired{}, errSkeleton }
func DecodeLabel(enc Encoding, body []byte) (Label, error)     { return Label{}, errSkeleton }
func DecodePosition(body []byte) (Position, error)             { return Position{}, errSkeleton }
func DecodeSourcePosition(body []byte) (SourcePosition, error) { return SourcePosition{}, errSkeleton }
func OutcomeSeq(body []byte) (first, last uint64, err error)   { return 0, 0, errSkeleton }
