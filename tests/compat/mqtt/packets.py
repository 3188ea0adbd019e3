"""Packets of a broker, compared with what mosquitto's tests want by what the standard leaves no choice about."""

# Properties of CONNACK by which a broker tells its own limits: Session Expiry, Server Keep Alive, Receive Maximum, Topic Alias Maximum,
# Maximum QoS, Retain Available, Maximum Packet Size, and which subscriptions it takes. By how many bytes each has.
LIMITS = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}
CONNACK, DISCONNECT, REASON_STRING = 0x20, 0xE0, 0x1F
MALFORMED, PROTOCOL_ERROR, NO_SUBSCRIBERS = 0x81, 0x82, b"\x10"


def essence(packet):
    """What of a broker's packet the standard leaves no choice about. Left out are its own limits, reasons in words, whether a packet
    that is not as it has to be counts as malformed or as an error of the protocol (mosquitto says either), and whether a publisher is
    told that nobody has subscribed."""
    if not packet or packet[0] >> 4 not in (2, 4, 5, 6, 7, 14):
        return packet
    head = {CONNACK: 4, DISCONNECT: 3}.get(packet[0], 5)
    kept = packet[:1] + packet[2:head]
    if packet[0] in (CONNACK, DISCONNECT):
        kept = kept.replace(bytes([MALFORMED]), bytes([PROTOCOL_ERROR]))
    elif kept[3:] in (b"\x00", NO_SUBSCRIBERS):
        kept = kept[:3]
    properties = packet[head + 1:]
    while properties:
        kind = properties[0]
        if packet[0] == CONNACK and kind in LIMITS:
            properties = properties[1 + LIMITS[kind]:]
        elif kind == REASON_STRING:
            properties = properties[3 + int.from_bytes(properties[1:3]):]
        else:
            break
    return kept + properties


def read_packet(sock):
    """A whole packet, or what there is of it when the broker ends the connection."""
    packet, length, shift = sock.recv(1), 0, 0
    while packet:
        byte = sock.recv(1)
        packet += byte
        if not byte:
            return packet
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            break
    while length > 0 and (more := sock.recv(length)):
        packet += more
        length -= len(more)
    return packet


def packets(together):
    """What is written as one message may be several packets."""
    while together:
        length, shift, head = 0, 0, 1
        while head < len(together):
            length |= (together[head] & 0x7F) << shift
            head, shift = head + 1, shift + 7
            if together[head - 1] < 0x80:
                break
        yield together[:head + length]
        together = together[head + length:]
