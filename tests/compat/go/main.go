// franz-go against a broker; `member` as its first argument makes it one member of a group (member.go).
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	broker  = os.Args[1]
	replies = bufio.NewReader(os.Stdin)
	admin   *kadm.Client
)

// ask asks the matrix runner (proof/src/compat/session.rs); anything but its ok is an error.
func ask(request string) error {
	_, err := asked(request)
	return err
}

// asked is what follows the ok.
func asked(request string) (string, error) {
	fmt.Println("@" + request)
	reply, err := replies.ReadString('\n')
	if err != nil {
		return "", err
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(reply), " ")
	if word != "ok" {
		return "", fmt.Errorf("%s: %s", request, reply)
	}
	return rest, nil
}

func until(condition func() bool, what string) error {
	deadline := time.Now().Add(40 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			return errors.New("not within 40 s: " + what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

func patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 40*time.Second)
}

func client(options ...kgo.Opt) *kgo.Client {
	common := []kgo.Opt{
		kgo.SeedBrokers(broker),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(50 * time.Millisecond),
	}
	made, err := kgo.NewClient(append(common, options...)...)
	if err != nil {
		panic(err)
	}
	return made
}

func createTopic(name string, partitions int32, config map[string]*string) error {
	ctx, cancel := patience()
	defer cancel()
	_, err := admin.CreateTopic(ctx, partitions, 1, config, name)
	return err
}

func records(topic string, count int) []*kgo.Record {
	made := make([]*kgo.Record, count)
	for i := range made {
		record := &kgo.Record{Topic: topic, Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i)*1000)}
		if i%7 != 3 {
			record.Key = []byte(strings.Repeat(fmt.Sprintf("device-%d ", i%5), 10))
		}
		if i%11 != 5 {
			record.Value = []byte(strings.Repeat(fmt.Sprintf("reading %d ", i), 9+i%13))
		}
		if i%3 == 0 {
			record.Headers = []kgo.RecordHeader{{Key: "unit", Value: []byte("K")}, {Key: "none", Value: nil}}
		}
		made[i] = record
	}
	return made
}

func send(to *kgo.Client, batch []*kgo.Record) error {
	ctx, cancel := patience()
	defer cancel()
	return to.ProduceSync(ctx, batch...).FirstErr()
}

func next(from *kgo.Client, count int) ([]*kgo.Record, error) {
	ctx, cancel := patience()
	defer cancel()
	var got []*kgo.Record
	for len(got) < count {
		fetches := from.PollRecords(ctx, count-len(got))
		if ctx.Err() != nil {
			return nil, fmt.Errorf("not within 40 s: %d records, have %d", count, len(got))
		}
		for _, err := range fetches.Errors() {
			fmt.Println("fetch:", err.Err)
		}
		got = append(got, fetches.Records()...)
	}
	return got, nil
}

func same(got, sent []*kgo.Record) error {
	if len(got) != len(sent) {
		return fmt.Errorf("%d records, not %d", len(got), len(sent))
	}
	for i, right := range sent {
		left := got[i]
		equal := bytes.Equal(left.Key, right.Key) && (left.Key == nil) == (right.Key == nil) &&
			bytes.Equal(left.Value, right.Value) && (left.Value == nil) == (right.Value == nil) &&
			left.Timestamp.Equal(right.Timestamp) && len(left.Headers) == len(right.Headers)
		for h := range left.Headers {
			equal = equal && left.Headers[h].Key == right.Headers[h].Key && bytes.Equal(left.Headers[h].Value, right.Headers[h].Value)
		}
		if !equal {
			return fmt.Errorf("record %d is %v, not %v", i, left, right)
		}
	}
	return nil
}

func readAndCompare(topic string, from kgo.Offset, sent []*kgo.Record) error {
	reader := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: from}}))
	defer reader.Close()
	got, err := next(reader, len(sent))
	if err != nil {
		return err
	}
	return same(got, sent)
}

func create() error {
	retention := "7200000"
	if err := createTopic("created", 4, map[string]*string{"retention.ms": &retention}); err != nil {
		return err
	}
	ctx, cancel := patience()
	defer cancel()
	topics, err := admin.ListTopics(ctx, "created")
	if err != nil || len(topics["created"].Partitions) != 4 {
		return fmt.Errorf("listed as %v, %v", topics, err)
	}
	configs, err := admin.DescribeTopicConfigs(ctx, "created")
	if err != nil {
		return err
	}
	resource, err := configs.On("created", nil)
	if err != nil {
		return err
	}
	found := false
	for _, config := range resource.Configs {
		found = found || config.Key == "retention.ms" && config.MaybeValue() == retention
	}
	if !found {
		return fmt.Errorf("retention.ms is not in %v", resource.Configs)
	}
	if err := createTopic("created", 1, nil); !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("created twice: %v", err)
	}
	return nil
}

func codec(name string, codec kgo.CompressionCodec) error {
	topic := "codec-" + name
	if err := createTopic(topic, 1, nil); err != nil {
		return err
	}
	sent := records(topic, 300)
	to := client(kgo.ProducerBatchCompression(codec), kgo.DisableIdempotentWrite(), kgo.ProducerLinger(20*time.Millisecond))
	defer to.Close()
	if err := send(to, sent); err != nil {
		return err
	}
	if err := ask("codec " + topic + " 0 " + name); err != nil {
		return err
	}
	return readAndCompare(topic, kgo.NewOffset().AtStart(), sent)
}

func seekByTime() error {
	if err := createTopic("seek", 1, nil); err != nil {
		return err
	}
	sent := records("seek", 100)
	to := client()
	defer to.Close()
	if err := send(to, sent); err != nil {
		return err
	}
	ctx, cancel := patience()
	defer cancel()
	base := sent[0].Timestamp.UnixMilli()
	for after, wanted := range map[int64]int64{-1: 0, 41_001: 42, 99_000: 99, 99_001: 100} {
		listed, err := admin.ListOffsetsAfterMilli(ctx, base+after, "seek")
		if err != nil {
			return err
		}
		// Past the end franz-go puts the end offset itself.
		if found, _ := listed.Lookup("seek", 0); found.Err != nil || found.Offset != wanted {
			return fmt.Errorf("%d is at %v, not %d", after, found, wanted)
		}
	}
	latest, err := admin.ListMaxTimestampOffsets(ctx, "seek")
	if err != nil {
		return err
	}
	if found, _ := latest.Lookup("seek", 0); found.Err != nil || found.Offset != 99 {
		return fmt.Errorf("the latest timestamp is at %v", found)
	}
	return readAndCompare("seek", kgo.NewOffset().AfterMilli(base+41_001), sent[42:])
}

func idempotent() error {
	if err := createTopic("idempotent", 1, nil); err != nil {
		return err
	}
	sent := records("idempotent", 500)
	to := client(kgo.ProducerBatchMaxBytes(2000))
	defer to.Close()
	if err := send(to, sent); err != nil {
		return err
	}
	if err := ask("idempotent idempotent 0"); err != nil {
		return err
	}
	return readAndCompare("idempotent", kgo.NewOffset().AtStart(), sent)
}

// transactions are refused at once and for good; Apache Kafka begins them.
func transactions() error {
	if err := createTopic("transactions", 1, nil); err != nil {
		return err
	}
	started := time.Now()
	to := client(kgo.TransactionalID("none-here"))
	defer to.Close()
	ctx, cancel := patience()
	defer cancel()
	_, _, err := to.ProducerID(ctx)
	if err != nil && !errors.Is(err, kerr.TransactionalIDAuthorizationFailed) {
		return fmt.Errorf("not final: %w", err)
	}
	if err != nil && time.Since(started) > 15*time.Second {
		return fmt.Errorf("it took %v", time.Since(started))
	}
	return nil
}

// member polls in a goroutine of its own; all members share what they got.
type member struct {
	client *kgo.Client
	owned  map[int32]bool
	done   chan error
	end    context.CancelFunc
}

var (
	lock sync.Mutex
	got  []string
)

func join() *member {
	joined := &member{owned: map[int32]bool{}, done: make(chan error, 1)}
	change := func(owns bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, topics map[string][]int32) {
			lock.Lock()
			defer lock.Unlock()
			for _, partition := range topics["group"] {
				if owns {
					joined.owned[partition] = true
				} else {
					delete(joined.owned, partition)
				}
			}
		}
	}
	joined.client = client(
		kgo.ConsumerGroup("pair"), kgo.ConsumeTopics("group"), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(15*time.Second), kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.OnPartitionsAssigned(change(true)), kgo.OnPartitionsRevoked(change(false)), kgo.OnPartitionsLost(change(false)),
	)
	ctx, cancel := context.WithCancel(context.Background())
	joined.end = cancel
	go func() {
		for ctx.Err() == nil {
			fetches := joined.client.PollFetches(ctx)
			lock.Lock()
			for _, record := range fetches.Records() {
				got = append(got, string(record.Value))
			}
			lock.Unlock()
		}
		patient, cancel := patience()
		defer cancel()
		err := joined.client.CommitUncommittedOffsets(patient)
		joined.client.Close()
		joined.done <- err
	}()
	return joined
}

func (m *member) leave() error {
	m.end()
	return <-m.done
}

func (m *member) owns() int {
	lock.Lock()
	defer lock.Unlock()
	return len(m.owned)
}

func group() error {
	if err := createTopic("group", 4, nil); err != nil {
		return err
	}
	first, second := join(), join()
	if err := until(func() bool { return first.owns() == 2 && second.owns() == 2 }, "two members with two partitions each"); err != nil {
		return err
	}
	var sent []*kgo.Record
	var wanted []string
	for i := 0; i < 40; i++ {
		value := fmt.Sprintf("%02d", i)
		wanted = append(wanted, value)
		sent = append(sent, &kgo.Record{Topic: "group", Partition: int32(i % 4), Value: []byte(value)})
	}
	to := client()
	defer to.Close()
	if err := send(to, sent); err != nil {
		return err
	}
	read := func() bool {
		lock.Lock()
		defer lock.Unlock()
		return len(got) >= 40
	}
	if err := until(read, "40 records in the group"); err != nil {
		return err
	}
	sort.Strings(got)
	if strings.Join(got, " ") != strings.Join(wanted, " ") {
		return fmt.Errorf("got %v", got)
	}
	if err := second.leave(); err != nil {
		return err
	}
	if err := until(func() bool { return first.owns() == 4 }, "the one that is left takes over"); err != nil {
		return err
	}
	if err := first.leave(); err != nil {
		return err
	}
	ctx, cancel := patience()
	defer cancel()
	committed, err := admin.FetchOffsets(ctx, "pair")
	if err != nil {
		return err
	}
	for partition := int32(0); partition < 4; partition++ {
		if at, _ := committed.Lookup("group", partition); at.At != 10 {
			return fmt.Errorf("committed %v", committed)
		}
	}
	return nil
}

func restart() error {
	if err := createTopic("restart", 1, nil); err != nil {
		return err
	}
	sent := records("restart", 150)
	to := client()
	defer to.Close()
	lasting := func() *kgo.Client {
		return client(kgo.ConsumerGroup("lasting"), kgo.ConsumeTopics("restart"), kgo.DisableAutoCommit(),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond))
	}
	reader := lasting()
	defer reader.Close()
	for round, how := range []string{"term", "kill"} {
		part := sent[round*50 : (round+1)*50]
		if err := send(to, part); err != nil {
			return err
		}
		read, err := next(reader, 50)
		if err != nil {
			return err
		}
		if err := same(read, part); err != nil {
			return err
		}
		commits := func() bool {
			ctx, cancel := patience()
			defer cancel()
			err := reader.CommitUncommittedOffsets(ctx)
			if err != nil {
				fmt.Println("commit:", err)
			}
			return err == nil
		}
		if err := until(commits, "a commit"); err != nil {
			return err
		}
		if err := ask("restart " + how); err != nil {
			return err
		}
	}
	if err := send(to, sent[100:]); err != nil {
		return err
	}
	reader.Close()
	later := lasting()
	defer later.Close()
	read, err := next(later, 50)
	if err != nil {
		return err
	}
	if err := same(read, sent[100:]); err != nil {
		return err
	}
	return readAndCompare("restart", kgo.NewOffset().AtStart(), sent)
}

func main() {
	if os.Args[1] == "member" {
		groupMember(os.Args[2:])
		return
	}
	adminClient := client()
	admin = kadm.NewClient(adminClient)
	failed := false
	scenario := func(name string, run func() error) {
		started := time.Now()
		if err := run(); err != nil {
			failed = true
			fmt.Printf("@fail %s: %s\n", name, strings.Join(strings.Fields(err.Error()), " "))
		} else {
			fmt.Printf("@pass %s\n", name)
		}
		fmt.Printf("%s: %.1f s\n", name, time.Since(started).Seconds())
	}
	scenario("create", create)
	for _, each := range []struct {
		name  string
		codec kgo.CompressionCodec
	}{
		{"none", kgo.NoCompression()}, {"gzip", kgo.GzipCompression()}, {"snappy", kgo.SnappyCompression()},
		{"lz4", kgo.Lz4Compression()}, {"zstd", kgo.ZstdCompression()},
	} {
		scenario("codec "+each.name, func() error { return codec(each.name, each.codec) })
	}
	scenario("seek by time", seekByTime)
	scenario("idempotent", idempotent)
	scenario("transactions", transactions)
	scenario("group", group)
	scenario("restart", restart)
	scenario("SASL_SSL", saslSSL)
	scenario("mTLS", mutualTLS)
	scenario("registry", registry)
	if failed {
		os.Exit(1)
	}
}
