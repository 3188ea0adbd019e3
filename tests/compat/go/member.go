package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var telling sync.Mutex

// work is how long a member takes for what it has seen, before it commits: see ../python/logbook.py.
const work = 100 * time.Millisecond

// say writes one line of a member's log: see ../python/logbook.py.
func say(event string, facts map[string]any) {
	if facts == nil {
		facts = map[string]any{}
	}
	telling.Lock()
	defer telling.Unlock()
	facts["event"], facts["at_us"] = event, time.Now().UnixMicro()
	line, err := json.Marshal(facts)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(line, '\n'))
}

func number(text string) time.Duration {
	value, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return time.Duration(value) * time.Millisecond
}

// groupMember is franz-go as a member of a group under chaos.
func groupMember(arguments []string) {
	seed, group, topic := arguments[0], arguments[1], arguments[2]
	session, rebalance := number(arguments[3]), number(arguments[4])
	lost := func(event string) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(context.Context, *kgo.Client, map[string][]int32) { say(event, nil) }
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(seed), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.Balancers(kgo.RoundRobinBalancer(), kgo.RangeBalancer()), kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(session), kgo.HeartbeatInterval(session / 8), kgo.RebalanceTimeout(rebalance),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, client *kgo.Client, topics map[string][]int32) {
			_, generation := client.GroupMetadata()
			say("assigned", map[string]any{"generation": generation, "partitions": append([]int32{}, topics[topic]...)})
		}),
		kgo.OnPartitionsRevoked(lost("revoked")), kgo.OnPartitionsLost(lost("lost")),
	}
	if len(arguments) > 5 {
		options = append(options, kgo.InstanceID(arguments[5]))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		panic(err)
	}
	leaving, leave := context.WithCancel(context.Background())
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\n')
		leave()
	}()
	for leaving.Err() == nil {
		err := read(leaving, client, topic)
		client.AllowRebalance()
		if errors.Is(err, kerr.FencedInstanceID) {
			say("fenced", map[string]any{"why": err.Error()})
			break
		}
	}
	client.CloseAllowingRebalance()
}

// read polls once and commits what came.
func read(leaving context.Context, client *kgo.Client, topic string) error {
	patient, cancel := context.WithTimeout(leaving, time.Second)
	defer cancel()
	fetches := client.PollRecords(patient, 100)
	for _, failure := range fetches.Errors() {
		if errors.Is(failure.Err, kerr.FencedInstanceID) {
			return failure.Err
		}
		if !errors.Is(failure.Err, context.DeadlineExceeded) && !errors.Is(failure.Err, context.Canceled) {
			say("trouble", map[string]any{"why": failure.Err.Error()})
		}
	}
	seen, offsets := map[int32][][2]any{}, map[int32]kgo.EpochOffset{}
	fetches.EachRecord(func(record *kgo.Record) {
		seen[record.Partition] = append(seen[record.Partition], [2]any{record.Offset, string(record.Value)})
		offsets[record.Partition] = kgo.EpochOffset{Epoch: record.LeaderEpoch, Offset: record.Offset + 1}
	})
	for partition, records := range seen {
		say("seen", map[string]any{"partition": partition, "records": records})
	}
	if len(offsets) == 0 {
		return nil
	}
	return commit(client, topic, offsets)
}

func commit(client *kgo.Client, topic string, offsets map[int32]kgo.EpochOffset) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	named := map[string]int64{}
	for partition, offset := range offsets {
		named[strconv.Itoa(int(partition))] = offset.Offset
	}
	time.Sleep(work)
	_, generation := client.GroupMetadata()
	say("committing", map[string]any{"generation": generation, "offsets": named})
	var refusal error
	client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{topic: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
			refusal = err
			if err != nil {
				return
			}
			for _, each := range response.Topics {
				for _, partition := range each.Partitions {
					if refusal == nil {
						refusal = kerr.ErrorForCode(partition.ErrorCode)
					}
				}
			}
		})
	if refusal != nil {
		say("refused", map[string]any{"why": refusal.Error()})
		return refusal
	}
	_, generation = client.GroupMetadata()
	say("committed", map[string]any{"generation": generation})
	return nil
}
