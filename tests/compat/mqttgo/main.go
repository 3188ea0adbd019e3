// Eclipse Paho's clients for Go against a broker: paho.mqtt.golang for 3.1.1, paho.golang for 5; and franz-go for the records that their
// messages became.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/paho"
	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	count    = 200
	patience = 40 * time.Second
)

var replies = bufio.NewReader(os.Stdin)

// ask asks the matrix runner (proof/src/compat/session.rs), and gives what follows its ok; anything else is an error.
func ask(request string) (string, error) {
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

func numbers(from, to int) []string {
	var all []string
	for number := from; number < to; number++ {
		all = append(all, strconv.Itoa(number))
	}
	return all
}

// messages are what a client got: topic and payload, in order.
type messages struct {
	mutex sync.Mutex
	all   [][2]string
}

func (got *messages) add(topic string, payload []byte) {
	got.mutex.Lock()
	defer got.mutex.Unlock()
	got.all = append(got.all, [2]string{topic, string(payload)})
}

func (got *messages) of(topic string) []string {
	got.mutex.Lock()
	defer got.mutex.Unlock()
	var values []string
	for _, one := range got.all {
		if one[0] == topic {
			values = append(values, one[1])
		}
	}
	return values
}

// until waits until a topic's messages have this one among them.
func (got *messages) until(topic, last string) error {
	deadline := time.Now().Add(patience)
	for !slices.Contains(got.of(topic), last) {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %s of %s, only %d messages", patience, last, topic, len(got.of(topic)))
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

func same(what string, got, wanted []string) error {
	if !slices.Equal(got, wanted) {
		return fmt.Errorf("%s: %d values, for %d: %v", what, len(got), len(wanted), got)
	}
	return nil
}

// each is the values without repeats, sorted by number.
func each(values []string) []string {
	values = slices.Clone(values)
	slices.SortFunc(values, func(one, other string) int {
		a, _ := strconv.Atoi(one)
		b, _ := strconv.Atoi(other)
		return a - b
	})
	return slices.Compact(values)
}

// stored is the values of a Kafka topic's records with this key, in order, when as many are there as are waited for.
func stored(topic, key string, least int) ([]string, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(os.Args[1]),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var values []string
	for len(values) < least {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%d records of %s, for %d", len(values), key, least)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			if string(record.Key) == key {
				values = append(values, string(record.Value))
			}
		})
	}
	return values, nil
}

func waited(token mqtt.Token) error {
	if !token.WaitTimeout(patience) {
		return errors.New("no answer in time")
	}
	return token.Error()
}

// old connects by 3.1.1.
func old(host, name string, kept bool) (mqtt.Client, *messages, error) {
	got := new(messages)
	options := mqtt.NewClientOptions().
		AddBroker("tcp://" + host).
		SetClientID(name).
		SetProtocolVersion(4).
		SetCleanSession(!kept).
		SetAutoReconnect(true).
		SetMaxReconnectInterval(500 * time.Millisecond).
		SetDefaultPublishHandler(func(_ mqtt.Client, message mqtt.Message) {
			// It gives a message again that was sent again as its PUBREC was lost: such a one says so.
			isAgain := message.Duplicate() && slices.Contains(got.of(message.Topic()), string(message.Payload()))
			if !isAgain {
				got.add(message.Topic(), message.Payload())
			}
		})
	client := mqtt.NewClient(options)
	return client, got, waited(client.Connect())
}

func publishOld(client mqtt.Client, topic string, qos byte, values []string) error {
	var tokens []mqtt.Token
	for _, value := range values {
		tokens = append(tokens, client.Publish(topic, qos, false, value))
	}
	for _, token := range tokens {
		if err := waited(token); err != nil {
			return err
		}
	}
	return nil
}

func thereAndBackOld(host string) error {
	for qos := range byte(3) {
		topic := fmt.Sprintf("go/4/%d", qos)
		reader, got, err := old(host, "go-reader", false)
		if err != nil {
			return err
		}
		if err := waited(reader.Subscribe("go/4/+", qos, nil)); err != nil {
			return err
		}
		writer, _, err := old(host, "go-writer", false)
		if err != nil {
			return err
		}
		if err := publishOld(writer, topic, qos, numbers(0, count)); err != nil {
			return err
		}
		if err := got.until(topic, strconv.Itoa(count-1)); err != nil {
			return err
		}
		if err := same(topic, got.of(topic), numbers(0, count)); err != nil {
			return err
		}
		records, err := stored("mqtt", topic, count)
		if err != nil {
			return err
		}
		if err := same("records of "+topic, records, numbers(0, count)); err != nil {
			return err
		}
		reader.Disconnect(100)
		writer.Disconnect(100)
	}
	return nil
}

func killOld(host string) error {
	for qos := byte(1); qos < 3; qos++ {
		topic := fmt.Sprintf("go/kill/%d", qos)
		reader, got, err := old(host, "go-reader-"+topic, true)
		if err != nil {
			return err
		}
		if err := waited(reader.Subscribe(topic, qos, nil)); err != nil {
			return err
		}
		writer, _, err := old(host, "go-writer-"+topic, true)
		if err != nil {
			return err
		}
		if err := publishOld(writer, topic, qos, numbers(0, 100)); err != nil {
			return err
		}
		if err := got.until(topic, "99"); err != nil {
			return err
		}
		// Both come back by themselves, and what was not acknowledged is sent again.
		done := make(chan error, 1)
		go func() { done <- publishOld(writer, topic, qos, numbers(100, 140)) }()
		if _, err := ask("restart kill"); err != nil {
			return err
		}
		if err := <-done; err != nil {
			return err
		}
		if err := publishOld(writer, topic, qos, numbers(140, count)); err != nil {
			return err
		}
		if err := got.until(topic, strconv.Itoa(count-1)); err != nil {
			return err
		}
		records, err := stored("mqtt", topic, count)
		if err != nil {
			return err
		}
		values := got.of(topic)
		if qos == 2 && (len(values) != count || len(records) != count) {
			return fmt.Errorf("%s: %d messages and %d records, for %d once each", topic, len(values), len(records), count)
		}
		// What it sends again it does not send in order.
		if err := same(topic, each(values), numbers(0, count)); err != nil {
			return err
		}
		if err := same("records of "+topic, each(records), numbers(0, count)); err != nil {
			return err
		}
		reader.Disconnect(100)
		writer.Disconnect(100)
	}
	return nil
}

// connect connects by 5.
func connect(host, name string) (*paho.Client, *messages, error) {
	connection, err := net.Dial("tcp", host)
	if err != nil {
		return nil, nil, err
	}
	got := new(messages)
	client := paho.NewClient(paho.ClientConfig{
		ClientID: name,
		Conn:     connection,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){
			func(received paho.PublishReceived) (bool, error) {
				got.add(received.Packet.Topic, received.Packet.Payload)
				return true, nil
			},
		},
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = client.Connect(ctx, &paho.Connect{ClientID: name, KeepAlive: 30, CleanStart: true})
	return client, got, err
}

func publish(client *paho.Client, topic string, qos byte, values []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, value := range values {
		message := &paho.Publish{Topic: topic, QoS: qos, Payload: []byte(value)}
		if _, err := client.Publish(ctx, message); err != nil {
			return err
		}
	}
	return nil
}

func subscribe(client *paho.Client, filter string, qos byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	options := []paho.SubscribeOptions{{Topic: filter, QoS: qos}}
	_, err := client.Subscribe(ctx, &paho.Subscribe{Subscriptions: options})
	return err
}

func thereAndBack(host string) error {
	for qos := range byte(3) {
		topic := fmt.Sprintf("go/5/%d", qos)
		reader, got, err := connect(host, "go-reader-5")
		if err != nil {
			return err
		}
		if err := subscribe(reader, "go/5/#", qos); err != nil {
			return err
		}
		writer, _, err := connect(host, "go-writer-5")
		if err != nil {
			return err
		}
		if err := publish(writer, topic, qos, numbers(0, count)); err != nil {
			return err
		}
		if err := got.until(topic, strconv.Itoa(count-1)); err != nil {
			return err
		}
		if err := same(topic, got.of(topic), numbers(0, count)); err != nil {
			return err
		}
		records, err := stored("mqtt", topic, count)
		if err != nil {
			return err
		}
		if err := same("records of "+topic, records, numbers(0, count)); err != nil {
			return err
		}
		for _, client := range []*paho.Client{reader, writer} {
			if err := client.Disconnect(&paho.Disconnect{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// kafkaTopics reads and writes a Kafka topic by its name, by both versions.
func kafkaTopics(host string) error {
	producer, err := kgo.NewClient(kgo.SeedBrokers(os.Args[1]), kgo.AllowAutoTopicCreation())
	if err != nil {
		return err
	}
	defer producer.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	writer, _, err := old(host, "go-writer", false)
	if err != nil {
		return err
	}
	// It is made by its use.
	if err := publishOld(writer, "$kafka/go-orders/7", 1, []string{"first"}); err != nil {
		return err
	}
	reader, got, err := connect(host, "go-reader-5")
	if err != nil {
		return err
	}
	if err := subscribe(reader, "$replay/earliest/$kafka/go-orders/#", 1); err != nil {
		return err
	}
	record := &kgo.Record{Topic: "go-orders", Key: []byte("7"), Value: []byte("by Kafka")}
	if err := producer.ProduceSync(ctx, record).FirstErr(); err != nil {
		return err
	}
	if err := publishOld(writer, "$kafka/go-orders/7", 2, []string{"last"}); err != nil {
		return err
	}
	if err := got.until("$kafka/go-orders/7", "last"); err != nil {
		return err
	}
	wanted := []string{"first", "by Kafka", "last"}
	if err := same("messages", got.of("$kafka/go-orders/7"), wanted); err != nil {
		return err
	}
	records, err := stored("go-orders", "7", 3)
	if err != nil {
		return err
	}
	writer.Disconnect(100)
	return errors.Join(same("records", records, wanted), reader.Disconnect(&paho.Disconnect{}))
}

func main() {
	host, err := ask("mqtt")
	if err != nil {
		panic(err)
	}
	failed := false
	for _, scenario := range []struct {
		name string
		run  func(string) error
	}{
		{"3.1.1", thereAndBackOld},
		{"3.1.1 kill", killOld},
		{"5", thereAndBack},
		{"kafka topics", kafkaTopics},
	} {
		if err := scenario.run(host); err != nil {
			failed = true
			fmt.Printf("@fail %s: %s\n", scenario.name, strings.Join(strings.Fields(err.Error()), " "))
		} else {
			fmt.Printf("@pass %s\n", scenario.name)
		}
	}
	if failed {
		os.Exit(1)
	}
}
