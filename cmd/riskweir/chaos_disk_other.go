//go:build !linux

package main

import (
	"errors"

	"github.com/riskweir/riskweir/internal/chaos"
)

func disks() error { return errors.New("disks of their own for nodes are a matter of Linux") }

func (c *chaosRun) OwnDisk(string, int64) (chaos.Disk, error) { return nil, disks() }
