/* Dumps of the MFC by rtnetlink, decoded into fixed records.
 *
 * The messages are those of ipmr_fill_mroute (net/ipv4/ipmr.c), ip6mr_fill_mroute (net/ipv6/ip6mr.c) and mr_fill_mroute
 * (net/ipv4/ipmr_base.c). Nothing is read past the given size, whatever the lengths inside say: the tests feed garbage.
 * Many entries have the same interfaces, so each distinct (iif, oifs) is kept once and a record holds its number. */

#define MR_MORE (-1)
#define MR_DONE 0
#define MR_MALFORMED (-2)
#define MR_TRUNCATED (-3)

#define RECORD_FIXED 38
#define RECEIVE_SIZE (256 * 1024)
#define NO_PATHS UINT32_MAX

struct oif {
    int32_t ifindex;
    uint32_t ttl;
};

struct paths {
    int32_t iif;
    uint32_t count;
    struct oif oifs[MAXVIFS];
};

struct growing {
    uint8_t *data;
    size_t used;
    size_t size;
};

typedef struct mr_dump {
    int ipv6;
    uint32_t sequence;
    int interrupted;
    size_t address;         /* bytes of an address */
    size_t record;          /* bytes of a record */
    double tick;            /* seconds in a unit of RTA_EXPIRES */
    struct growing records;
    struct growing paths;   /* distinct ones, joined */
    struct growing offsets; /* of each distinct one, u32 */
    uint32_t *slots;        /* open addressing: number + 1 */
    uint32_t slot_count;    /* a power of two */
    uint32_t last;          /* the number found last: neighbours are often alike */
} mr_dump;

_Static_assert(sizeof(struct oif) == 8 && offsetof(struct paths, oifs) == 8, "paths as Python reads them");
_Static_assert(sizeof(struct rtmsg) == NLMSG_ALIGN(sizeof(struct rtmsg)), "attributes follow struct rtmsg without a gap");
_Static_assert(MAXVIFS == MAXMIFS, "one bound for both families");

mr_dump *mr_dump_new(int ipv6, uint32_t sequence)
{
    mr_dump *dump = calloc(1, sizeof *dump);
    long ticks = sysconf(_SC_CLK_TCK);
    if (!dump)
        return NULL;
    dump->ipv6 = ipv6 != 0;
    dump->sequence = sequence;
    dump->address = ipv6 ? 16 : 4;
    dump->record = RECORD_FIXED + 4 + 2 * dump->address;
    dump->tick = 1.0 / (double)(ticks > 0 ? ticks : 100);
    dump->last = NO_PATHS;
    return dump;
}

void mr_dump_free(mr_dump *dump)
{
    if (!dump)
        return;
    free(dump->records.data);
    free(dump->paths.data);
    free(dump->offsets.data);
    free(dump->slots);
    free(dump);
}

static uint8_t *grow(struct growing *to, size_t more)
{
    if (to->size - to->used < more) {
        size_t size = to->size ? to->size * 2 : 4096;
        while (size - to->used < more)
            size *= 2;
        uint8_t *data = realloc(to->data, size);
        if (!data)
            return NULL;
        to->data = data;
        to->size = size;
    }
    to->used += more;
    return to->data + to->used - more;
}

static size_t paths_size(const struct paths *paths)
{
    return offsetof(struct paths, oifs) + paths->count * sizeof(struct oif);
}

static uint32_t paths_hash(const struct paths *paths, size_t size)
{
    const uint8_t *bytes = (const uint8_t *)paths;
    uint32_t hash = 2166136261u; /* FNV-1a, by words */
    for (size_t i = 0; i < size; i += 4) {
        uint32_t word;
        memcpy(&word, bytes + i, 4);
        hash = (hash ^ word) * 16777619u;
        hash ^= hash >> 15;
    }
    return hash;
}

static const uint8_t *paths_at(const mr_dump *dump, uint32_t number, size_t *size)
{
    uint32_t offset, count;
    memcpy(&offset, dump->offsets.data + (size_t)number * 4, 4);
    memcpy(&count, dump->paths.data + offset + 4, 4);
    *size = offsetof(struct paths, oifs) + (size_t)count * sizeof(struct oif);
    return dump->paths.data + offset;
}

static int paths_equal(const mr_dump *dump, uint32_t number, const struct paths *paths, size_t size)
{
    size_t other;
    const uint8_t *bytes = paths_at(dump, number, &other);
    return other == size && memcmp(bytes, paths, size) == 0;
}

/* Makes room before the table is half full; 0 or ENOMEM. */
static int paths_rehash(mr_dump *dump, uint32_t count)
{
    uint32_t slot_count = dump->slot_count ? dump->slot_count * 2 : 64;
    if (dump->slot_count && count < dump->slot_count / 2)
        return 0;
    uint32_t *slots = calloc(slot_count, sizeof *slots);
    if (!slots)
        return ENOMEM;
    for (uint32_t number = 0; number < count; number++) {
        struct paths paths;
        size_t size;
        const uint8_t *bytes = paths_at(dump, number, &size);
        memcpy(&paths, bytes, size);
        uint32_t slot = paths_hash(&paths, size) & (slot_count - 1);
        while (slots[slot])
            slot = (slot + 1) & (slot_count - 1);
        slots[slot] = number + 1;
    }
    free(dump->slots);
    dump->slots = slots;
    dump->slot_count = slot_count;
    return 0;
}

/* The number of these paths, new or known; NO_PATHS = no memory. */
static uint32_t paths_number(mr_dump *dump, const struct paths *paths)
{
    size_t size = paths_size(paths);
    uint32_t count = (uint32_t)(dump->offsets.used / 4);
    if (dump->last != NO_PATHS && paths_equal(dump, dump->last, paths, size))
        return dump->last;
    if (paths_rehash(dump, count))
        return NO_PATHS;
    uint32_t slot = paths_hash(paths, size) & (dump->slot_count - 1);
    for (; dump->slots[slot]; slot = (slot + 1) & (dump->slot_count - 1))
        if (paths_equal(dump, dump->slots[slot] - 1, paths, size))
            return dump->last = dump->slots[slot] - 1;
    uint32_t offset = (uint32_t)dump->paths.used;
    uint8_t *bytes = grow(&dump->paths, size);
    uint8_t *offset_at = bytes ? grow(&dump->offsets, 4) : NULL;
    if (!offset_at)
        return NO_PATHS;
    memcpy(bytes, paths, size);
    memcpy(offset_at, &offset, 4);
    dump->slots[slot] = count + 1;
    return dump->last = count;
}

/* Sorted by ifindex as they come: there are 31 at most, and mostly they come sorted. */
static void add_oif(struct paths *paths, int32_t ifindex, uint32_t ttl)
{
    uint32_t at = paths->count++;
    for (; at > 0 && paths->oifs[at - 1].ifindex > ifindex; at--)
        paths->oifs[at] = paths->oifs[at - 1];
    paths->oifs[at].ifindex = ifindex;
    paths->oifs[at].ttl = ttl;
}

static int read_oifs(struct paths *paths, const uint8_t *at, size_t size)
{
    while (size >= sizeof(struct rtnexthop)) {
        struct rtnexthop hop;
        memcpy(&hop, at, sizeof hop);
        if (hop.rtnh_len < sizeof hop || hop.rtnh_len > size || paths->count == MAXVIFS)
            return MR_MALFORMED;
        add_oif(paths, hop.rtnh_ifindex, hop.rtnh_hops);
        size_t step = RTNH_ALIGN(hop.rtnh_len);
        if (step > size)
            step = size;
        at += step;
        size -= step;
    }
    return size ? MR_MALFORMED : 0;
}

struct decoded {
    struct paths paths;
    struct rta_mfc_stats stats;
    uint64_t expires;
    int has_expires;
    uint32_t table;
    uint8_t group[16];
    uint8_t source[16];
    int has_addresses; /* bit 0 group, bit 1 source */
};

static int read_attribute(const mr_dump *dump, struct decoded *to, unsigned type, const uint8_t *value, size_t size)
{
    size_t want = type == RTA_TABLE || type == RTA_IIF ? 4 : type == RTA_EXPIRES ? 8 : type == RTA_MFC_STATS ? sizeof to->stats : 0;
    if (type == RTA_SRC || type == RTA_DST)
        want = dump->address;
    if (size < want)
        return MR_MALFORMED;
    switch (type) {
    case RTA_TABLE:
        memcpy(&to->table, value, 4);
        break;
    case RTA_IIF:
        memcpy(&to->paths.iif, value, 4);
        break;
    case RTA_SRC:
        memcpy(to->source, value, dump->address);
        to->has_addresses |= 2;
        break;
    case RTA_DST:
        memcpy(to->group, value, dump->address);
        to->has_addresses |= 1;
        break;
    case RTA_EXPIRES:
        memcpy(&to->expires, value, 8);
        to->has_expires = 1;
        break;
    case RTA_MFC_STATS:
        memcpy(&to->stats, value, sizeof to->stats);
        break;
    case RTA_MULTIPATH:
        return read_oifs(&to->paths, value, size);
    default:
        break;
    }
    return 0;
}

static int write_record(mr_dump *dump, const struct rtmsg *message, const struct decoded *from)
{
    uint32_t number = paths_number(dump, &from->paths);
    uint8_t *out = number == NO_PATHS ? NULL : grow(&dump->records, dump->record);
    if (!out)
        return ENOMEM;
    /* The default table has a number of its own in each family; here, as in the whole daemon, it is 0. */
    uint32_t table = from->table == (uint32_t)(dump->ipv6 ? RT_TABLE_MAIN : RT_TABLE_DEFAULT) ? 0 : from->table;
    double idle = from->has_expires ? (double)from->expires * dump->tick : -1.0;
    memcpy(out, &from->stats.mfcs_packets, 8);
    memcpy(out + 8, &from->stats.mfcs_bytes, 8);
    memcpy(out + 16, &from->stats.mfcs_wrong_if, 8);
    memcpy(out + 24, &idle, 8);
    memcpy(out + 32, &number, 4);
    out[36] = message->rtm_protocol;
    out[37] = (message->rtm_flags & RTNH_F_UNRESOLVED) != 0;
    for (unsigned i = 0; i < 4; i++)
        out[RECORD_FIXED + i] = (uint8_t)(table >> (24 - 8 * i));
    memcpy(out + RECORD_FIXED + 4, from->group, dump->address);
    memcpy(out + RECORD_FIXED + 4 + dump->address, from->source, dump->address);
    return 0;
}

/* The payload of one RTM_NEWROUTE. */
static int read_route(mr_dump *dump, const uint8_t *at, size_t size)
{
    struct rtmsg message;
    struct decoded to = {0};
    if (size < sizeof message)
        return MR_MALFORMED;
    memcpy(&message, at, sizeof message);
    if (message.rtm_family != (dump->ipv6 ? RTNL_FAMILY_IP6MR : RTNL_FAMILY_IPMR))
        return 0;
    to.table = message.rtm_table;
    at += NLMSG_ALIGN(sizeof message);
    size -= sizeof message;
    while (size >= sizeof(struct rtattr)) {
        struct rtattr attribute;
        memcpy(&attribute, at, sizeof attribute);
        if (attribute.rta_len < sizeof attribute || attribute.rta_len > size)
            return MR_MALFORMED;
        int wrong = read_attribute(dump, &to, attribute.rta_type & NLA_TYPE_MASK, at + RTA_LENGTH(0),
                                   attribute.rta_len - RTA_LENGTH(0));
        if (wrong)
            return wrong;
        size_t step = RTA_ALIGN((size_t)attribute.rta_len);
        if (step > size)
            step = size;
        at += step;
        size -= step;
    }
    if (size || to.has_addresses != 3)
        return MR_MALFORMED;
    return write_record(dump, &message, &to);
}

/* The number in an NLMSG_ERROR or NLMSG_DONE: 0, or an errno. */
static int read_error(const uint8_t *at, size_t size)
{
    int32_t number = 0;
    if (size >= sizeof number)
        memcpy(&number, at, sizeof number);
    return number < 0 ? (int)-(int64_t)number & INT32_MAX : 0;
}

int mr_dump_feed(mr_dump *dump, const uint8_t *at, size_t size)
{
    while (size >= sizeof(struct nlmsghdr)) {
        struct nlmsghdr header;
        memcpy(&header, at, sizeof header);
        if (header.nlmsg_len < sizeof header || header.nlmsg_len > size)
            return MR_MALFORMED;
        const uint8_t *payload = at + NLMSG_HDRLEN;
        size_t payload_size = header.nlmsg_len - NLMSG_HDRLEN;
        if (header.nlmsg_seq == dump->sequence) {
            int result = 0;
            dump->interrupted |= (header.nlmsg_flags & NLM_F_DUMP_INTR) != 0;
            if (header.nlmsg_type == NLMSG_ERROR && payload_size < sizeof(int32_t))
                return MR_MALFORMED;
            if (header.nlmsg_type == NLMSG_DONE || header.nlmsg_type == NLMSG_ERROR)
                return read_error(payload, payload_size);
            if (header.nlmsg_type == RTM_NEWROUTE)
                result = read_route(dump, payload, payload_size);
            if (result)
                return result;
        }
        size_t step = NLMSG_ALIGN((size_t)header.nlmsg_len);
        if (step > size)
            step = size;
        at += step;
        size -= step;
    }
    return size ? MR_MALFORMED : MR_MORE;
}

int mr_dump_request(const mr_dump *dump, int fd, uint32_t table)
{
    struct {
        struct nlmsghdr header;
        struct rtmsg message;
        struct rtattr attribute;
        uint32_t table;
    } request = {0};
    request.header.nlmsg_type = RTM_GETROUTE;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.header.nlmsg_seq = dump->sequence;
    request.header.nlmsg_len = table ? sizeof request : NLMSG_LENGTH(sizeof request.message);
    request.message.rtm_family = dump->ipv6 ? RTNL_FAMILY_IP6MR : RTNL_FAMILY_IPMR;
    request.attribute.rta_type = RTA_TABLE;
    request.attribute.rta_len = RTA_LENGTH(sizeof request.table);
    request.table = table;
    return send(fd, &request, request.header.nlmsg_len, 0) < 0 ? errno : 0;
}

int mr_dump_run(mr_dump *dump, int fd)
{
    uint8_t *buffer = malloc(RECEIVE_SIZE);
    int result = buffer ? MR_MORE : ENOMEM;
    while (result == MR_MORE) {
        struct sockaddr_nl from = {0};
        struct iovec vector = {.iov_base = buffer, .iov_len = RECEIVE_SIZE};
        struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &vector, .msg_iovlen = 1};
        ssize_t size = recvmsg(fd, &message, 0);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0)
            result = errno;
        else if (message.msg_flags & MSG_TRUNC)
            result = MR_TRUNCATED;
        else if (from.nl_pid == 0) /* from the kernel, and from nobody else */
            result = mr_dump_feed(dump, buffer, (size_t)size);
    }
    free(buffer);
    return result;
}

int mr_dump_interrupted(const mr_dump *dump)
{
    return dump->interrupted;
}

size_t mr_dump_count(const mr_dump *dump)
{
    return dump->records.used / dump->record;
}

size_t mr_dump_record_size(const mr_dump *dump)
{
    return dump->record;
}

const uint8_t *mr_dump_records(const mr_dump *dump)
{
    return dump->records.data;
}

size_t mr_dump_paths_size(const mr_dump *dump)
{
    return dump->paths.used;
}

const uint8_t *mr_dump_paths(const mr_dump *dump)
{
    return dump->paths.data;
}
