package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/groundplan/groundplan/pipelines"
	"github.com/groundplan/groundplan/sidecar/fabric"
	"github.com/groundplan/groundplan/sidecar/launch"
	"github.com/groundplan/groundplan/sidecar/links"
	"github.com/groundplan/groundplan/sidecar/network"
	"github.com/groundplan/groundplan/sidecar/prober"
)

// buildOurs builds one network as a sidecar does, and prints what it took.
func buildOurs(o options) error {
	if err := launch.Prepare(); err != nil {
		return err
	}
	hosts, err := strconv.Atoi(o.hosts)
	if err != nil {
		return err
	}
	var took figures
	began := time.Now()
	f, n, err := shaped(hosts, o)
	if err != nil {
		return err
	}
	took.Build = time.Since(began).Seconds()
	if took.Works, err = reaches(f, 0, hosts-1); err != nil {
		return err
	}
	began = time.Now()
	slots := make([]int, hosts)
	for i := range slots {
		slots[i] = i
	}
	// The links are gone when Remove returns. Without it they would go by themselves, some time after Close.
	if err := errors.Join(f.Remove(slots...), n.Close(), f.Close()); err != nil {
		return fmt.Errorf("taking the network down: %w", err)
	}
	took.Destroy = time.Since(began).Seconds()
	return json.NewEncoder(os.Stdout).Encode(took)
}

// shaped builds a network of hosts and shapes every link.
func shaped(hosts int, o options) (*fabric.Fabric, *network.Network, error) {
	ctx := context.Background()
	f, err := fabric.New(fabric.Options{})
	if err != nil {
		return nil, nil, err
	}
	specs := make([]fabric.Spec, hosts)
	for i := range specs {
		specs[i] = fabric.Spec{Slot: i, Hostname: fmt.Sprint("h", i)}
	}
	if err := errors.Join(f.Add(ctx, specs)...); err != nil {
		return nil, nil, err
	}
	n, err := network.New(f, network.Options{})
	if err != nil {
		return nil, nil, err
	}
	bandwidth, latency := pipelines.Bandwidth(o.megabits*1e6), pipelines.Duration(o.latency)
	if err := n.Seat(ctx, []pipelines.Group{{Name: "hosts", Instances: hosts}}); err != nil {
		return nil, nil, err
	}
	return f, n, n.SetStage(ctx, pipelines.Network{Default: pipelines.Shape{Bandwidth: &bandwidth, Latency: &latency}})
}

// reaches says whether packets get from one host to another.
func reaches(f *fabric.Fabric, from, to int) (bool, error) {
	var ends [2]*prober.Endpoint
	for i, slot := range []int{from, to} {
		_, data := f.Addresses(slot)
		var err error
		if ends[i], err = prober.Open(func(work func() error) error { return f.Inside(slot, work) }, data); err != nil {
			return false, err
		}
		defer ends[i].Close()
	}
	answer, err := prober.Knock(context.Background(), ends[0], ends[1], 5*time.Second)
	return answer.TCP == links.Accept, err
}
