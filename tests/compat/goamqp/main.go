// Azure's go-amqp against the AMQP front, and franz-go for the records that its messages became.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/Azure/go-amqp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const count = 200

var (
	replies = bufio.NewReader(os.Stdin)
	kafka   string
	url     string
	failed  bool
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

func connect(ctx context.Context) (*amqp.Conn, *amqp.Session) {
	conn := must(amqp.Dial(ctx, url, nil))
	return conn, must(conn.NewSession(ctx, nil))
}

func send(ctx context.Context, session *amqp.Session, target string, messages ...*amqp.Message) {
	sender := must(session.NewSender(ctx, target, nil))
	for _, message := range messages {
		check(sender.Send(ctx, message, nil) == nil, "it is accepted")
	}
	check(sender.Close(ctx) == nil, "it is closed")
}

func receive(ctx context.Context, receiver *amqp.Receiver, wanted int) []*amqp.Message {
	var found []*amqp.Message
	for len(found) < wanted {
		message := must(receiver.Receive(ctx, nil))
		check(receiver.AcceptMessage(ctx, message) == nil, "it is settled")
		found = append(found, message)
	}
	return found
}

func nothing(ctx context.Context, receiver *amqp.Receiver) {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	message, err := receiver.Receive(ctx, nil)
	check(errors.Is(err, context.DeadlineExceeded), "something comes: %v %v", message, err)
}

func text(message *amqp.Message) string {
	if value, is := message.Value.(string); is {
		return value
	}
	return string(message.GetData())
}

func texts(messages []*amqp.Message) []string {
	var all []string
	for _, message := range messages {
		all = append(all, text(message))
	}
	return all
}

func ofText(body string) *amqp.Message {
	return amqp.NewMessage([]byte(body))
}

func ofTexts(bodies []string) []*amqp.Message {
	var all []*amqp.Message
	for _, body := range bodies {
		all = append(all, ofText(body))
	}
	return all
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

func bodies(ctx context.Context) {
	messages := []*amqp.Message{
		{Value: "text äöü"},
		{Value: []byte{0, 1, 255}},
		{Value: int32(-7)},
		{Value: uint64(1 << 40)},
		{Value: true},
		{Value: 6.5},
		{Value: []any{"a", int64(1), nil}},
		{Value: map[string]any{"k": "v"}},
		{Data: [][]byte{[]byte("data")}},
		{Data: [][]byte{[]byte("one"), []byte("two")}},
		{Sequence: [][]any{{"x", "y"}}},
		{Data: [][]byte{bytes.Repeat([]byte{9}, 700_000)}},
	}
	conn, session := connect(ctx)
	defer conn.Close()
	for name, options := range map[string]*amqp.ReceiverOptions{
		"go-queue": {Credit: 100},
		"go-log":   {Credit: 100, Filters: []amqp.LinkFilter{amqp.NewLinkFilter("rabbitmq:stream-offset-spec", 0, "first")}},
	} {
		send(ctx, session, name, messages...)
		receiver := must(session.NewReceiver(ctx, name, options))
		for at, found := range receive(ctx, receiver, len(messages)) {
			wanted := messages[at]
			same := reflect.DeepEqual(plain(found.Value), plain(wanted.Value)) && reflect.DeepEqual(found.Data, wanted.Data) &&
				reflect.DeepEqual(found.Sequence, wanted.Sequence)
			check(same, "%d: %.200v %.200v %.200v", at, found.Value, found.Data, found.Sequence)
		}
		check(receiver.Close(ctx) == nil, "it is closed")
	}
}

// plain is a value whose maps have one kind of keys.
func plain(value any) any {
	if from, is := value.(map[any]any); is {
		all := map[string]any{}
		for key, value := range from {
			all[fmt.Sprint(key)] = value
		}
		return all
	}
	return value
}

func credit(ctx context.Context) {
	conn, session := connect(ctx)
	defer conn.Close()
	send(ctx, session, "go-credit", ofTexts(numbers(0, count))...)
	// No more than is asked for.
	one := must(session.NewReceiver(ctx, "go-credit", &amqp.ReceiverOptions{Credit: -1}))
	var found []*amqp.Message
	for range 3 {
		check(one.IssueCredit(1) == nil, "it is asked for")
		found = append(found, receive(ctx, one, 1)...)
		nothing(ctx, one)
	}
	check(one.Close(ctx) == nil, "it is closed")
	many := must(session.NewReceiver(ctx, "go-credit", &amqp.ReceiverOptions{Credit: 1000}))
	found = append(found, receive(ctx, many, count-3)...)
	nothing(ctx, many)
	check(reflect.DeepEqual(texts(found), numbers(0, count)), "they come in order: %v", texts(found))
	check(many.Close(ctx) == nil, "it is closed")
	// A drain of an empty queue is answered.
	drained := must(session.NewReceiver(ctx, "go-credit", &amqp.ReceiverOptions{Credit: -1}))
	check(drained.IssueCredit(10) == nil, "it is asked for")
	check(drained.DrainCredit(ctx, nil) == nil, "it is drained")
}

func outcomes(ctx context.Context) {
	conn, session := connect(ctx)
	defer conn.Close()
	send(ctx, session, "go-outcomes", ofTexts(numbers(0, 4))...)
	receiver := must(session.NewReceiver(ctx, "go-outcomes", &amqp.ReceiverOptions{Credit: 1}))
	seen := map[string]int{}
	for {
		wait, cancel := context.WithTimeout(ctx, time.Second)
		message, err := receiver.Receive(wait, nil)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		check(err == nil, "%v", err)
		before := uint32(0)
		if message.Header != nil {
			before = message.Header.DeliveryCount
		}
		said := fmt.Sprintf("%s %d", text(message), before)
		seen[said]++
		switch {
		case said == "m0 0":
			err = receiver.ModifyMessage(ctx, message, &amqp.ModifyMessageOptions{DeliveryFailed: true})
		case said == "m1 0" && seen[said] == 1:
			err = receiver.ReleaseMessage(ctx, message)
		case said == "m2 0":
			err = receiver.RejectMessage(ctx, message, nil)
		default:
			err = receiver.AcceptMessage(ctx, message)
		}
		check(err == nil, "%s: %v", said, err)
	}
	wanted := map[string]int{"m0 0": 1, "m0 1": 1, "m1 0": 2, "m2 0": 1, "m3 0": 1}
	check(reflect.DeepEqual(seen, wanted), "%v", seen)
}

func toAndFromKafka(ctx context.Context) {
	conn, session := connect(ctx)
	defer conn.Close()
	subject := "reading"
	var messages []*amqp.Message
	for _, body := range numbers(0, count) {
		message := ofText(body)
		message.Properties = &amqp.MessageProperties{Subject: &subject}
		message.ApplicationProperties = map[string]any{"unit": "K"}
		message.Annotations = amqp.Annotations{"x-opt-partition-key": "key"}
		messages = append(messages, message)
	}
	send(ctx, session, "go-kafka", messages...)
	for at, record := range stored(ctx, "go-kafka") {
		unit := ""
		for _, header := range record.Headers {
			if header.Key == "unit" {
				unit = string(header.Value)
			}
		}
		said := fmt.Sprintf("%s %s %s", record.Key, record.Value, unit)
		check(said == fmt.Sprintf("key m%d K", at), "record %d is %s", at, said)
	}
	producer := must(kgo.NewClient(kgo.SeedBrokers(kafka)))
	defer producer.Close()
	record := &kgo.Record{Topic: "go-kafka", Value: []byte("from kafka"), Headers: []kgo.RecordHeader{{Key: "unit", Value: []byte("C")}}}
	check(producer.ProduceSync(ctx, record).FirstErr() == nil, "it is stored")
	found := receive(ctx, must(session.NewReceiver(ctx, "go-kafka", &amqp.ReceiverOptions{Credit: 1000})), count+1)
	last := found[count]
	check(text(last) == "from kafka" && last.ApplicationProperties["unit"] == "C", "%v", last)
	check(*found[0].Properties.Subject == subject, "the subject")
}

// kill: what a lost connection leaves open is sent again, and the receiver goes on.
func kill(ctx context.Context) {
	var conn *amqp.Conn
	var session *amqp.Session
	again := func(work func() error) {
		for {
			if session != nil {
				if work() == nil {
					return
				}
				conn.Close()
				session = nil
			}
			check(ctx.Err() == nil, "the broker does not come back")
			var err error
			if conn, err = amqp.Dial(ctx, url, nil); err == nil {
				session, _ = conn.NewSession(ctx, nil)
			} else {
				time.Sleep(100 * time.Millisecond)
			}
		}
	}
	var sender *amqp.Sender
	var of *amqp.Session
	for number := range count {
		if number == count/2 {
			ask("restart", "kill")
		}
		again(func() (err error) {
			if of != session {
				if sender, err = session.NewSender(ctx, "go-kill", nil); err != nil {
					return err
				}
				of = session
			}
			return sender.Send(ctx, ofText(fmt.Sprintf("m%d", number)), nil)
		})
	}
	found := map[string]bool{}
	var receiver *amqp.Receiver
	killed := false
	of = nil
	for len(found) < count {
		if len(found) == count/2 && !killed {
			killed = true
			ask("restart", "kill")
		}
		again(func() (err error) {
			if of != session {
				if receiver, err = session.NewReceiver(ctx, "go-kill", &amqp.ReceiverOptions{Credit: 10}); err != nil {
					return err
				}
				of = session
			}
			message, err := receiver.Receive(ctx, nil)
			if err != nil {
				return err
			}
			if err = receiver.AcceptMessage(ctx, message); err == nil {
				found[text(message)] = true
			}
			return err
		})
	}
	records := map[string]bool{}
	for _, record := range stored(ctx, "go-kill") {
		records[string(record.Value)] = true
	}
	for _, body := range numbers(0, count) {
		check(found[body] && records[body], "%s is lost", body)
	}
}

func main() {
	kafka = os.Args[1]
	url = "amqp://" + ask("amqp")
	scenario("bodies", bodies)
	scenario("credit", credit)
	scenario("outcomes", outcomes)
	scenario("kafka", toAndFromKafka)
	scenario("kill", kill)
	if failed {
		os.Exit(1)
	}
}
