package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// registry uses a compacted topic as a registry of schemas: the latest of each subject is left, and who starts over reads that.
func registry() error {
	policy, segment, lag, ratio, retention := "compact", "200", "500", "0.01", "0"
	settings := map[string]*string{
		"cleanup.policy":            &policy,
		"segment.ms":                &segment,
		"max.compaction.lag.ms":     &lag,
		"min.cleanable.dirty.ratio": &ratio,
		"delete.retention.ms":       &retention,
	}
	if err := createTopic("registry", 1, settings); err != nil {
		return err
	}
	to := client()
	defer to.Close()
	put := func(key, value []byte) error {
		return send(to, []*kgo.Record{{Topic: "registry", Key: key, Value: value}})
	}
	subject := func(n int) []byte { return []byte(fmt.Sprintf("subject-%d", n)) }
	for version := 0; version < 5; version++ {
		for n := 0; n < 40; n++ {
			if err := put(subject(n), []byte(fmt.Sprintf("schema %d of %d", version, n))); err != nil {
				return err
			}
		}
		time.Sleep(250 * time.Millisecond)
	}
	expected := map[string]string{}
	for n := 0; n < 40; n++ {
		if n >= 10 {
			expected[string(subject(n))] = fmt.Sprintf("schema 4 of %d", n)
		} else if err := put(subject(n), nil); err != nil {
			return err
		}
	}
	if err := put(nil, []byte("keyless")); !errors.Is(err, kerr.InvalidRecord) {
		return fmt.Errorf("without a key: %v", err)
	}
	deadline := time.Now().Add(60 * time.Second)
	for {
		time.Sleep(250 * time.Millisecond)
		if err := put([]byte("tick"), []byte(time.Now().String())); err != nil {
			return err
		}
		found, err := registered()
		if err != nil {
			return err
		}
		if sameSubjects(found, expected) {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within 60 s: the latest of each subject alone, there are %d records", len(found))
		}
	}
	if err := ask("restart kill"); err != nil {
		return err
	}
	found, err := registered()
	if err == nil && !sameSubjects(found, expected) {
		err = fmt.Errorf("after the restart: %v", found)
	}
	return err
}

func sameSubjects(found []*kgo.Record, expected map[string]string) bool {
	if len(found) != len(expected) {
		return false
	}
	for _, record := range found {
		if record.Value == nil || expected[string(record.Key)] != string(record.Value) {
			return false
		}
	}
	return true
}

// registered reads the registry from its start to its end, and leaves the ticks out; the last of them is the end.
func registered() ([]*kgo.Record, error) {
	ctx, cancel := patience()
	defer cancel()
	ends, err := admin.ListEndOffsets(ctx, "registry")
	if err != nil {
		return nil, err
	}
	end, _ := ends.Lookup("registry", 0)
	reader := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"registry": {0: kgo.NewOffset().AtStart()}}))
	defer reader.Close()
	var found []*kgo.Record
	for at := int64(0); at < end.Offset; {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("the end at %d is not reached: %d", end.Offset, at)
		}
		for _, record := range fetches.Records() {
			at = record.Offset + 1
			if string(record.Key) != "tick" {
				found = append(found, record)
			}
		}
	}
	return found, nil
}
