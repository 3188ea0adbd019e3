// Azure's client of Event Hubs for Go against the AMQP front, and franz-go for the records that its events became.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	count      = 300
	many       = 10_000
	partitions = 3
)

var (
	replies = bufio.NewReader(os.Stdin)
	kafka   string
	// What Azure's emulator is reached by: nothing is encrypted. It stays the same over restarts.
	connection string
	failed     bool
)

// ask asks the runner, and gives what follows its ok.
func ask(words ...string) string {
	request := strings.Join(words, " ")
	fmt.Println("@" + request)
	reply, err := replies.ReadString('\n')
	reply = strings.TrimSpace(reply)
	check(err == nil && (reply == "ok" || strings.HasPrefix(reply, "ok ")), "%s: %s", request, reply)
	return strings.TrimSpace(strings.TrimPrefix(reply, "ok"))
}

func check(holds bool, format string, words ...any) {
	if !holds {
		panic(fmt.Errorf(format, words...))
	}
}

func must[T any](value T, err error) T {
	check(err == nil, "%v", err)
	return value
}

func scenario(name string, run func(context.Context)) {
	started := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	defer func() {
		if trouble := recover(); trouble != nil {
			failed = true
			why := strings.Join(strings.Fields(fmt.Sprint(trouble)), " ")
			fmt.Printf("@fail %s: %.500s\n", name, why)
		} else {
			fmt.Printf("@pass %s\n", name)
		}
		fmt.Printf("%s: %.1f s\n", name, time.Since(started).Seconds())
	}()
	run(ctx)
}

func numbers(first, end int) []string {
	var all []string
	for number := first; number < end; number++ {
		all = append(all, fmt.Sprintf("m%d", number))
	}
	return all
}

func create(ctx context.Context, topic string) {
	admin := kadm.NewClient(must(kgo.NewClient(kgo.SeedBrokers(kafka))))
	defer admin.Close()
	must(admin.CreateTopic(ctx, partitions, 1, nil, topic))
}

// stored is what a topic has, partition by partition.
func stored(ctx context.Context, topic string) []*kgo.Record {
	admin := kadm.NewClient(must(kgo.NewClient(kgo.SeedBrokers(kafka))))
	defer admin.Close()
	left := int64(0)
	must(admin.ListEndOffsets(ctx, topic)).Each(func(it kadm.ListedOffset) { left += it.Offset })
	reader := must(kgo.NewClient(kgo.SeedBrokers(kafka), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())))
	defer reader.Close()
	var records []*kgo.Record
	for int64(len(records)) < left {
		fetches := reader.PollFetches(ctx)
		check(fetches.Err() == nil, "records of %s: %v", topic, fetches.Err())
		records = append(records, fetches.Records()...)
	}
	return records
}

func producer(topic string) *azeventhubs.ProducerClient {
	return must(azeventhubs.NewProducerClientFromConnectionString(connection, topic, &azeventhubs.ProducerClientOptions{RetryOptions: retries}))
}

func consumer(topic, group string) *azeventhubs.ConsumerClient {
	return must(azeventhubs.NewConsumerClientFromConnectionString(connection, topic, group, &azeventhubs.ConsumerClientOptions{RetryOptions: retries}))
}

// A broker is away for a moment.
var retries = azeventhubs.RetryOptions{MaxRetries: 60, RetryDelay: 200 * time.Millisecond, MaxRetryDelay: time.Second}

func in(partition string) *azeventhubs.EventDataBatchOptions {
	return &azeventhubs.EventDataBatchOptions{PartitionID: &partition}
}

func keyed(key string) *azeventhubs.EventDataBatchOptions {
	return &azeventhubs.EventDataBatchOptions{PartitionKey: &key}
}

func events(bodies ...string) []*azeventhubs.EventData {
	var all []*azeventhubs.EventData
	for _, body := range bodies {
		all = append(all, &azeventhubs.EventData{Body: []byte(body)})
	}
	return all
}

// send sends events in as few batches as they go into.
func send(ctx context.Context, client *azeventhubs.ProducerClient, where *azeventhubs.EventDataBatchOptions, all ...*azeventhubs.EventData) {
	batch := must(client.NewEventDataBatch(ctx, where))
	for _, event := range all {
		err := batch.AddEventData(event, nil)
		if errors.Is(err, azeventhubs.ErrEventDataTooLarge) && batch.NumEvents() > 0 {
			check(client.SendEventDataBatch(ctx, batch, nil) == nil, "it is stored")
			batch = must(client.NewEventDataBatch(ctx, where))
			err = batch.AddEventData(event, nil)
		}
		check(err == nil, "it goes into a batch: %v", err)
	}
	err := client.SendEventDataBatch(ctx, batch, nil)
	check(err == nil, "it is stored: %v", err)
}

// read is what a partition gives from a position on.
func read(ctx context.Context, topic, partition string, wanted int, from azeventhubs.StartPosition) []*azeventhubs.ReceivedEventData {
	client := consumer(topic, azeventhubs.DefaultConsumerGroup)
	defer client.Close(ctx)
	reader := must(client.NewPartitionClient(partition, &azeventhubs.PartitionClientOptions{StartPosition: from}))
	defer reader.Close(ctx)
	return receive(ctx, reader, wanted)
}

func receive(ctx context.Context, reader *azeventhubs.PartitionClient, wanted int) []*azeventhubs.ReceivedEventData {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	var all []*azeventhubs.ReceivedEventData
	for len(all) < wanted {
		some, err := reader.ReceiveEvents(ctx, wanted-len(all), nil)
		all = append(all, some...)
		check(err == nil, "%d of %d events: %v", len(all), wanted, err)
	}
	return all
}

func bodies(events []*azeventhubs.ReceivedEventData) []string {
	var all []string
	for _, event := range events {
		all = append(all, string(event.Body))
	}
	return all
}

func start() azeventhubs.StartPosition {
	yes := true
	return azeventhubs.StartPosition{Earliest: &yes}
}

func isNow(when time.Time) bool {
	return time.Since(when).Abs() < 10*time.Minute
}

func properties(ctx context.Context) {
	create(ctx, "az-properties")
	client := producer("az-properties")
	defer client.Close(ctx)
	hub := must(client.GetEventHubProperties(ctx, nil))
	check(hub.Name == "az-properties" && reflect.DeepEqual(hub.PartitionIDs, []string{"0", "1", "2"}), "%+v", hub)
	check(!hub.GeoReplicationEnabled, "%+v", hub)
	send(ctx, client, in("1"), events(numbers(0, 5)...)...)
	found := must(client.GetPartitionProperties(ctx, "1", nil))
	check(found.BeginningSequenceNumber == 0 && found.LastEnqueuedSequenceNumber == 4, "%+v", found)
	check(found.LastEnqueuedOffset == "4" && !found.IsEmpty && isNow(found.LastEnqueuedOn), "%+v", found)
	check(must(client.GetPartitionProperties(ctx, "2", nil)).IsEmpty, "nothing was sent there")
	nowhere, err := client.GetPartitionProperties(ctx, "9", nil)
	check(err != nil, "there is no such partition: %+v", nowhere)
}

func thereAndBack(ctx context.Context) {
	create(ctx, "az-back")
	client := producer("az-back")
	defer client.Close(ctx)
	content, id := "text/plain", "m-1"
	rich := &azeventhubs.EventData{
		Body:          []byte("rich"),
		Properties:    map[string]any{"unit": "K", "count": int64(7), "good": true},
		ContentType:   &content,
		CorrelationID: "c-1",
		MessageID:     &id,
	}
	long := bytes.Repeat([]byte{0, 1, 255}, 100_000)
	send(ctx, client, in("0"), rich)
	send(ctx, client, in("0"), &azeventhubs.EventData{Body: long})
	send(ctx, client, in("0"), events(numbers(0, count)...)...)
	found := read(ctx, "az-back", "0", count+2, start())
	first := found[0]
	check(reflect.DeepEqual(first.Properties, rich.Properties), "%v", first.Properties)
	check(*first.ContentType == content && first.CorrelationID == "c-1" && *first.MessageID == id, "%+v", first)
	check(bytes.Equal(found[1].Body, long), "a long one")
	check(reflect.DeepEqual(bodies(found[2:]), numbers(0, count)), "in order")
	for at, event := range found {
		check(event.SequenceNumber == int64(at) && event.Offset == fmt.Sprint(at), "%d: %+v", at, event)
		check(isNow(*event.EnqueuedTime), "%v", event.EnqueuedTime)
	}
	send(ctx, client, in("1"), events(numbers(0, many)...)...)
	found = read(ctx, "az-back", "1", many, start())
	check(reflect.DeepEqual(bodies(found), numbers(0, many)), "all of many in order")
	// Without events fetched ahead it asks for as many as it is asked for.
	reading := consumer("az-back", "group")
	defer reading.Close(ctx)
	one := must(reading.NewPartitionClient("1", &azeventhubs.PartitionClientOptions{StartPosition: start(), Prefetch: -1}))
	defer one.Close(ctx)
	for at := range 20 {
		check(reflect.DeepEqual(bodies(receive(ctx, one, 3)), numbers(3*at, 3*at+3)), "three at a time")
	}
}

func positions(ctx context.Context) {
	create(ctx, "az-positions")
	client := producer("az-positions")
	defer client.Close(ctx)
	send(ctx, client, in("0"), events(numbers(0, 10)...)...)
	earlier := read(ctx, "az-positions", "0", 10, start())
	// Times have milliseconds: what is sent now is later than what was.
	time.Sleep(50 * time.Millisecond)
	send(ctx, client, in("0"), events(numbers(10, 20)...)...)
	later := read(ctx, "az-positions", "0", 20, start())[10].EnqueuedTime
	offset, sequence := "4", int64(11)
	for first, from := range map[int]azeventhubs.StartPosition{
		5:  {Offset: &offset},
		4:  {Offset: &offset, Inclusive: true},
		12: {SequenceNumber: &sequence},
		11: {SequenceNumber: &sequence, Inclusive: true},
		10: {EnqueuedTime: later, Inclusive: true},
	} {
		found := bodies(read(ctx, "az-positions", "0", 20-first, from))
		check(reflect.DeepEqual(found, numbers(first, 20)), "%d: %v", first, found)
	}
	found := bodies(read(ctx, "az-positions", "0", 10, azeventhubs.StartPosition{EnqueuedTime: earlier[9].EnqueuedTime}))
	check(reflect.DeepEqual(found, numbers(10, 20)), "behind a time: %v", found)
	// When it is attached nobody is told: what comes later does.
	reading := consumer("az-positions", azeventhubs.DefaultConsumerGroup)
	defer reading.Close(ctx)
	latest := must(reading.NewPartitionClient("0", nil))
	defer latest.Close(ctx)
	for {
		wait, cancel := context.WithTimeout(ctx, time.Second)
		some, err := latest.ReceiveEvents(wait, 1, nil)
		cancel()
		if len(some) > 0 {
			check(string(some[0].Body) == "new", "%s is not new", some[0].Body)
			break
		}
		check(ctx.Err() == nil, "a new one: %v", err)
		send(ctx, client, in("0"), events("new")...)
	}
}

func partitionKeys(ctx context.Context) {
	create(ctx, "az-keys")
	client := producer("az-keys")
	defer client.Close(ctx)
	for number := range 20 {
		for key := range 10 {
			name := fmt.Sprintf("device %d", key)
			send(ctx, client, keyed(name), events(fmt.Sprintf("%s: %d", name, number))...)
		}
	}
	records := stored(ctx, "az-keys")
	check(len(records) == 200, "%d records", len(records))
	places, used := map[string]int32{}, map[int32]int{}
	seen := map[string]int{}
	for _, record := range records {
		key := string(record.Key)
		place, known := places[key]
		check(!known || place == record.Partition, "%s is in one partition", key)
		places[key] = record.Partition
		used[record.Partition]++
		check(string(record.Value) == fmt.Sprintf("%s: %d", key, seen[key]), "%s in order: %s", key, record.Value)
		seen[key]++
	}
	check(len(places) == 10 && len(used) > 1, "keys are spread over partitions: %v", places)
	for partition, amount := range used {
		for _, event := range read(ctx, "az-keys", fmt.Sprint(partition), amount, start()) {
			key := strings.Split(string(event.Body), ":")[0]
			check(event.PartitionKey != nil && *event.PartitionKey == key, "the key of %s: %v", event.Body, event.PartitionKey)
		}
	}
}

func ownerLevel(ctx context.Context) {
	create(ctx, "az-owner")
	client := producer("az-owner")
	defer client.Close(ctx)
	send(ctx, client, in("0"), events("first")...)
	// Without a second try, as some are refused.
	once := &azeventhubs.ConsumerClientOptions{RetryOptions: azeventhubs.RetryOptions{MaxRetries: -1}}
	owner := func(group string, level *int64) *azeventhubs.PartitionClient {
		of := must(azeventhubs.NewConsumerClientFromConnectionString(connection, "az-owner", group, once))
		return must(of.NewPartitionClient("0", &azeventhubs.PartitionClientOptions{StartPosition: start(), OwnerLevel: level}))
	}
	one, two := int64(1), int64(2)
	low := owner(azeventhubs.DefaultConsumerGroup, &one)
	receive(ctx, low, 1)
	other := owner("other", nil)
	receive(ctx, other, 1)
	high := owner(azeventhubs.DefaultConsumerGroup, &two)
	receive(ctx, high, 1)
	some, err := low.ReceiveEvents(ctx, 1, nil)
	var told *azeventhubs.Error
	check(errors.As(err, &told) && told.Code == azeventhubs.ErrorCodeOwnershipLost, "the old owner is told: %v %v", some, err)
	// Of a link that is refused the client knows no code, and tells what it was told.
	some, err = owner(azeventhubs.DefaultConsumerGroup, nil).ReceiveEvents(ctx, 1, nil)
	check(err != nil && strings.Contains(err.Error(), "amqp:link:stolen"), "who has no level is told: %v %v", some, err)
	send(ctx, client, in("0"), events("second")...)
	check(string(receive(ctx, high, 1)[0].Body) == "second", "the owner reads on")
	check(string(receive(ctx, other, 1)[0].Body) == "second", "and another group")
}

func toAndFromKafka(ctx context.Context) {
	create(ctx, "az-kafka")
	client := producer("az-kafka")
	defer client.Close(ctx)
	all := events(numbers(0, count)...)
	for _, event := range all {
		event.Properties = map[string]any{"unit": "K"}
	}
	send(ctx, client, keyed("key"), all...)
	records := stored(ctx, "az-kafka")
	check(len(records) == count, "%d records", len(records))
	unit := func(value string) kgo.RecordHeader {
		return kgo.RecordHeader{Key: "unit", Value: []byte(value)}
	}
	for at, record := range records {
		has := slices.ContainsFunc(record.Headers, func(it kgo.RecordHeader) bool { return reflect.DeepEqual(it, unit("K")) })
		check(string(record.Key) == "key" && string(record.Value) == string(all[at].Body) && has, "record %d is %v", at, record)
	}
	writer := must(kgo.NewClient(kgo.SeedBrokers(kafka)))
	defer writer.Close()
	record := &kgo.Record{Topic: "az-kafka", Partition: 0, Value: []byte("from kafka"), Headers: []kgo.RecordHeader{unit("C")}}
	result := writer.ProduceSync(ctx, record)
	check(result.FirstErr() == nil, "it is stored")
	record = result[0].Record
	after := fmt.Sprint(record.Offset)
	found := read(ctx, "az-kafka", fmt.Sprint(record.Partition), 1, azeventhubs.StartPosition{Offset: &after, Inclusive: true})[0]
	check(string(found.Body) == "from kafka" && found.Properties["unit"] == "C", "%s %v", found.Body, found.Properties)
}

// kill: producer and readers go on by themselves over two of them.
func kill(ctx context.Context) {
	create(ctx, "az-kill")
	reading := consumer("az-kill", azeventhubs.DefaultConsumerGroup)
	defer reading.Close(ctx)
	came := make(chan string)
	until, stop := context.WithCancel(ctx)
	defer stop()
	for partition := range partitions {
		reader := must(reading.NewPartitionClient(fmt.Sprint(partition), &azeventhubs.PartitionClientOptions{StartPosition: start()}))
		go func() {
			for until.Err() == nil {
				some, _ := reader.ReceiveEvents(until, 1, nil)
				for _, event := range some {
					select {
					case came <- string(event.Body):
					case <-until.Done():
					}
				}
			}
		}()
	}
	found := map[string]bool{}
	done := make(chan bool)
	go func() {
		defer close(done)
		for len(found) < count {
			select {
			case body := <-came:
				found[body] = true
			case <-until.Done():
				return
			}
		}
	}()
	client := producer("az-kill")
	defer client.Close(ctx)
	for number := range count {
		if number == count/3 || number == 2*count/3 {
			ask("restart", "kill")
		}
		send(ctx, client, in(fmt.Sprint(number%partitions)), events(fmt.Sprintf("m%d", number))...)
	}
	<-done
	stop()
	records := map[string]bool{}
	for _, record := range stored(ctx, "az-kill") {
		records[string(record.Value)] = true
	}
	for _, body := range numbers(0, count) {
		check(found[body] && records[body], "%s is lost", body)
	}
}

func main() {
	kafka = os.Args[1]
	connection = fmt.Sprintf("Endpoint=sb://%s;SharedAccessKeyName=any;SharedAccessKey=any;UseDevelopmentEmulator=true", ask("amqp"))
	scenario("properties", properties)
	scenario("there and back", thereAndBack)
	scenario("positions", positions)
	scenario("partition keys", partitionKeys)
	scenario("owner level", ownerLevel)
	scenario("kafka", toAndFromKafka)
	scenario("kill", kill)
	if failed {
		os.Exit(1)
	}
}
