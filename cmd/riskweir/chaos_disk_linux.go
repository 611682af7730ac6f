package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/riskweir/riskweir/internal/chaos"
)

// throttles is where the kernel lets the writes of some processes to one device be bounded: a cgroup of version 1.
const throttles = "/sys/fs/cgroup/blkio"

// disks says why no node can be given a disk of its own, nil if it can: it is a file system in a file, mounted by root.
func disks() error {
	if os.Geteuid() != 0 {
		return errors.New("only root can mount a disk")
	}
	for _, tool := range []string{"mkfs.ext4", "losetup", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(throttles, "blkio.throttle.write_iops_device")); err != nil {
		return fmt.Errorf("no writes can be throttled: %w", err)
	}
	return nil
}

// disk is a file system in a file, mounted where the store of a node was.
//
//	<dir>/n1          mounted
//	<dir>/n1.away     what was there, until it is moved back
type disk struct {
	store, away string
	device      string // /dev/loop0
	group       string // cgroup of those who are throttled; empty: none
	ballast     string
}

const (
	// A file system takes some of its device for itself.
	diskOverhead = 24 << 20
	// diskBallast is a file that takes what is free.
	diskBallast = ".ballast"
)

// OwnDisk moves the store of a node that is down to a disk with so many bytes free.
func (c *chaosRun) OwnDisk(node string, free int64) (chaos.Disk, error) {
	store := filepath.Join(c.layout.dir, node)
	d := &disk{store: store, away: store + ".away"}
	used, err := sizeOf(store)
	if err != nil {
		return nil, err
	}
	image := store + ".img"
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	defer os.Remove(image) // the mount holds it
	if err := errors.Join(f.Truncate(used+used/8+free+diskOverhead), f.Close()); err != nil {
		return nil, err
	}
	if _, err := tool("mkfs.ext4", "-q", "-F", "-m", "0", image); err != nil {
		return nil, err
	}
	if err := os.Rename(store, d.away); err != nil {
		return nil, err
	}
	if err := d.mount(image); err != nil {
		return nil, errors.Join(err, os.RemoveAll(store), os.Rename(d.away, store))
	}
	c.disks = append(c.disks, d)
	return d, os.CopyFS(store, os.DirFS(d.away))
}

func (d *disk) mount(image string) error {
	if err := os.Mkdir(d.store, 0o700); err != nil {
		return err
	}
	out, err := tool("losetup", "--find", "--show", image)
	if err != nil {
		return err
	}
	d.device = strings.TrimSpace(out)
	_, err = tool("mount", d.device, d.store)
	_, detach := tool("losetup", "--detach", d.device) // once it is not mounted any more
	return errors.Join(err, detach)
}

// Fill takes what is free.
func (d *disk) Fill() error {
	d.ballast = filepath.Join(d.store, diskBallast)
	f, err := os.Create(d.ballast)
	if err != nil {
		return err
	}
	defer f.Close()
	for piece := 1 << 20; piece >= 4096; { // the last ones are small
		if _, err = f.Write(make([]byte, piece)); errors.Is(err, syscall.ENOSPC) {
			piece /= 2
		} else if err != nil {
			return err
		}
	}
	return nil
}

// Throttle lets a process write to the disk so many times a second.
func (d *disk) Throttle(pid, writes int) error {
	var st syscall.Stat_t
	if err := syscall.Stat(d.device, &st); err != nil {
		return fmt.Errorf("%s: %w", d.device, err)
	}
	device := strconv.FormatUint(st.Rdev>>8&0xfff, 10) + ":" + strconv.FormatUint(st.Rdev&0xff, 10)
	d.group = filepath.Join(throttles, "riskweir-"+strconv.Itoa(os.Getpid()))
	if err := os.MkdirAll(d.group, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.group, "blkio.throttle.write_iops_device"), []byte(device+" "+strconv.Itoa(writes)), 0); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// Release lets who was throttled go at full speed.
func (d *disk) Release() error {
	if d.group == "" {
		return nil
	}
	pids, err := os.ReadFile(filepath.Join(d.group, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(pids)) {
		// It may have ended meanwhile.
		if err := os.WriteFile(filepath.Join(throttles, "cgroup.procs"), []byte(pid), 0); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	err = os.Remove(d.group)
	d.group = ""
	return err
}

// Remove moves the store of a node that is down back to where it was. Again is no harm.
func (d *disk) Remove() error {
	if d.device == "" {
		return nil
	}
	if err := d.Release(); err != nil {
		return err
	}
	if d.ballast != "" {
		if err := os.Remove(d.ballast); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	back := d.store + ".back"
	if err := os.CopyFS(back, os.DirFS(d.store)); err != nil {
		return err
	}
	if _, err := tool("umount", d.store); err != nil {
		return err
	}
	d.device = ""
	return errors.Join(os.Remove(d.store), os.Rename(back, d.store), os.RemoveAll(d.away))
}

// sizeOf is what the files below a directory take, in bytes.
func sizeOf(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			total += (info.Size() + 4095) &^ 4095
		}
		return err
	})
	return total, err
}

func tool(name string, args ...string) (string, error) {
	var said strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(said.String()))
	}
	return string(out), nil
}
