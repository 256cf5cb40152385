"""The scripts that run inside Redis: each change of a log, and each read of it, is one of them and hence atomic.

Keys of a log called ``tellwire``; the braces keep them in one slot of a Redis Cluster. A log in several shards has all
this once for each, with a name of its own between the braces (`RedisPlace.shard`)::

    {tellwire}:log          hash: epoch, seq, run, namespaces, uses, shards (how many; missing where it is one)
    {tellwire}:s:CHANNEL    stream: entry SEQ-0 with one field, "TIME SIZE TOKEN" LF message
    {tellwire}:c:CHANNEL    hash: last, floor, count, bytes, oldest, newest (of its messages), region
    {tellwire}:n:NAMESPACE  hash: floor (of the channels that were dropped), bytes
    {tellwire}:u:NAMESPACE  sorted set: the namespace's channels by when they were last used
    {tellwire}:i:ID@CHANNEL string with a time to live: "SEQ TIME TOKEN" of the message that has this id

Announced on ``{tellwire}:DB:CHANNEL`` is "EPOCH SEQ PREVIOUS TIME" LF message, or "- ORIGIN TIME" LF message if it is
ephemeral. Redis' publish and subscribe know no databases, so the name has it. The scripts need Redis 6.2.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tellwire.brokers.memory import CHANNEL_BYTES

TRIMMED_AT_ONCE = 1000
"""Most channels that are dropped in one append; over it the rest goes with the appends after."""

_SHARED = (
    f"""
local CHANNEL_BYTES = {CHANNEL_BYTES}
local DROPS = {TRIMMED_AT_ONCE}
"""
    """
-- Lua writes large numbers as 1e+15; Redis does not read that.
local function text(number) return string.format('%.0f', number) end

local function server_ms()
    local time = redis.call('TIME')
    return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local FIELDS = {'last', 'floor', 'count', 'bytes', 'oldest', 'newest'}

local function load(p, name)
    local row = redis.call('HMGET', p .. 'c:' .. name, 'last', 'floor', 'count', 'bytes', 'oldest', 'newest', 'region')
    if not row[1] then return nil end
    local c = {name = name, region = row[7]}
    for i, field in ipairs(FIELDS) do c[field] = tonumber(row[i]) end
    return c
end

local function save(p, c)
    redis.call('HSET', p .. 'c:' .. c.name, 'last', text(c.last), 'floor', text(c.floor), 'count', c.count,
        'bytes', text(c.bytes), 'oldest', text(c.oldest), 'newest', text(c.newest), 'region', c.region)
end

local function load_region(p, name)
    local row = redis.call('HMGET', p .. 'n:' .. name, 'floor', 'bytes')
    return {name = name, floor = tonumber(row[1] or 0), bytes = tonumber(row[2] or 0)}
end

local function save_region(p, r)
    redis.call('HSET', p .. 'n:' .. r.name, 'floor', text(r.floor), 'bytes', text(r.bytes))
end

local function weight(c) return CHANNEL_BYTES + #c.name + c.bytes end

-- Drops the oldest messages of a channel while it has more than `keep`, older ones than `too_old`, or has not freed
-- `excess` bytes (of these it keeps the newest message). Returns the bytes that it freed.
local function shorten(p, c, keep, too_old, excess)
    if c.count == 0 or not (c.count > keep or c.oldest < too_old or excess > 0) then return 0 end
    local key, from, freed, dropped, pages = p .. 's:' .. c.name, '-', 0, nil, 2
    local kept = false
    while not kept do
        local page = redis.call('XRANGE', key, from, '+', 'COUNT', pages)
        if #page == 0 then break end
        for _, entry in ipairs(page) do
            local time, size = string.match(entry[2][2], '^(%d+) (%d+)')
            time, size = tonumber(time), tonumber(size)
            if c.count > keep or time < too_old or (freed < excess and c.count > 1) then
                c.count, c.bytes, freed, dropped = c.count - 1, c.bytes - size, freed + size, entry[1]
            else
                c.oldest, kept = time, true
                break
            end
        end
        from, pages = '(' .. page[#page][1], 64
    end
    if dropped then
        c.floor = tonumber(string.match(dropped, '^%d+'))
        redis.call('XTRIM', key, 'MINID', '=', text(c.floor) .. '-1')
    end
    return freed
end

local function drop(p, r, name)
    redis.call('ZREM', p .. 'u:' .. r.name, name)
    local c = load(p, name)
    if c and c.region == r.name then
        r.bytes = r.bytes - weight(c)
        r.floor = math.max(r.floor, c.last, c.floor)
        redis.call('UNLINK', p .. 's:' .. name, p .. 'c:' .. name)
    end
end

-- Takes messages of many channels in order, `back` from the newest: `wanted` has tables {index, key, from, to}.
local function gather(wanted, limit_bytes, limit, back)
    local heap, out, total, more = {}, {}, 0, false
    local function fetch(w)
        if back then
            w.page = redis.call('XREVRANGE', w.key, w.to, w.from, 'COUNT', w.pages)
        else
            w.page = redis.call('XRANGE', w.key, w.from, w.to, 'COUNT', w.pages)
        end
        w.at, w.pages = 1, math.min(w.pages * 2, 32)
        local last = w.page[#w.page]
        if last then
            if back then w.to = '(' .. last[1] else w.from = '(' .. last[1] end
        end
    end
    local function look(w)
        local id = w.page[w.at] and w.page[w.at][1]
        w.seq = id and tonumber(string.match(id, '^%d+'))
        return w.seq
    end
    local function before(a, b) if back then return a.seq > b.seq end return a.seq < b.seq end
    local function sift(at)
        while true do
            local left = at * 2
            if left > #heap then return end
            if left < #heap and before(heap[left + 1], heap[left]) then left = left + 1 end
            if not before(heap[left], heap[at]) then return end
            heap[at], heap[left] = heap[left], heap[at]
            at = left
        end
    end
    for _, w in ipairs(wanted) do
        w.pages = 1
        fetch(w)
        if look(w) then heap[#heap + 1] = w end
    end
    for at = math.floor(#heap / 2), 1, -1 do sift(at) end
    while #heap > 0 do
        local w = heap[1]
        local value = w.page[w.at][2][2]
        total = total + tonumber(string.match(value, '^%d+ (%d+)'))
        if #out > 0 and (total > limit_bytes or (limit >= 0 and #out >= limit * 3)) then
            more = true
            break
        end
        out[#out + 1] = w.index
        out[#out + 1] = w.page[w.at][1]
        out[#out + 1] = value
        w.at = w.at + 1
        if w.at > #w.page then fetch(w) end
        if not look(w) then
            heap[1] = heap[#heap]
            heap[#heap] = nil
        end
        sift(1)
    end
    return out, more
end
"""
)

_APPEND = """
local log, stream, idkey = KEYS[1], KEYS[2], KEYS[3]
local p, epoch, channel, token, since, deadline, now, window, expect, value, size, region, keep, age, bound, announce,
    shard, shards = unpack(ARGV)
local server = server_ms()
local state = redis.call('HMGET', log, 'epoch', 'seq')
if state[1] ~= epoch then return {'epoch', state[2] or '0'} end
local seq = tonumber(state[2])
now = now ~= '' and tonumber(now) or server
local c = load(p, channel)

if window ~= '' then
    local known = redis.call('GET', idkey)
    if known then
        local place, time, by = string.match(known, '^(%d+) (%d+) (.*)$')
        if now < tonumber(time) + tonumber(window) then
            return {by == token and 'ok' or 'duplicate', place, time}
        end
    end
elseif since ~= '' and c then
    -- It was sent before, and the answer was lost: is it there?
    local from = '(' .. since .. '-0'
    while true do
        local page = redis.call('XRANGE', stream, from, '+', 'COUNT', 64)
        for _, entry in ipairs(page) do
            local time, by = string.match(entry[2][2], '^(%d+) %d+ ([^\\n]*)')
            if by == token then return {'ok', string.match(entry[1], '^%d+'), time} end
        end
        if #page < 64 then break end
        from = '(' .. page[#page][1]
    end
    if c.floor > tonumber(since) then return {'unsure', state[2]} end
elseif since ~= '' and load_region(p, region).floor > tonumber(since) then
    return {'unsure', state[2]}
end
if server > tonumber(deadline) then return {'late', state[2], text(server)} end
if expect ~= '' and expect ~= epoch .. '.' .. text(c and c.last or 0) then
    return {'conflict', state[2], text(c and c.last or 0)}
end

local r = load_region(p, region)
local users = p .. 'u:' .. region
if c and c.region ~= region then
    local former = load_region(p, c.region)
    former.bytes = former.bytes - weight(c)
    save_region(p, former)
    redis.call('ZREM', p .. 'u:' .. c.region, channel)
    r.bytes = r.bytes + weight(c)
    c.region = region
elseif not c then
    c = {name = channel, region = region, last = 0, floor = r.floor, count = 0, bytes = 0, oldest = now, newest = now}
    r.bytes = r.bytes + weight(c)
end
local previous = c.last
-- Each shard gives its own numbers only, so that no two give the same: those which its own number is left of.
seq = seq + 1 + (shard - seq - 1) % shards
local place = text(seq)
size = tonumber(size)
if window == '' then size = size + #epoch + 1 + #place end
redis.call('XADD', stream, place .. '-0', 'm', text(now) .. ' ' .. text(size) .. ' ' .. token .. '\\n' .. value)
redis.call('HSET', log, 'seq', place)
if window ~= '' then redis.call('SET', idkey, place .. ' ' .. text(now) .. ' ' .. token, 'PX', window) end
redis.call('ZADD', users, redis.call('HINCRBY', log, 'uses', 1), channel)
if c.count == 0 then c.oldest = now end
c.last, c.newest, c.count, c.bytes, r.bytes = seq, now, c.count + 1, c.bytes + size, r.bytes + size

local too_old = now - tonumber(age)
r.bytes = r.bytes - shorten(p, c, tonumber(keep), too_old, 0)
-- The channel at the front was not used for longest: looking at it on every append empties idle channels in time.
local front = redis.call('ZRANGE', users, 0, 0)[1]
if front ~= channel then
    local newest = tonumber(redis.call('HGET', p .. 'c:' .. front, 'newest') or 0)
    if newest < too_old then drop(p, r, front) end
end
bound = tonumber(bound)
for _ = 1, DROPS do
    if r.bytes <= bound then break end
    front = redis.call('ZRANGE', users, 0, 0)[1]
    if front == channel then
        r.bytes = r.bytes - shorten(p, c, tonumber(keep), too_old, r.bytes - bound)
        break
    end
    drop(p, r, front)
end
save(p, c)
save_region(p, r)
redis.call('PUBLISH', announce, epoch .. ' ' .. place .. ' ' .. text(previous) .. ' ' .. text(now) .. '\\n' .. value)
return {'ok', place, text(now)}
"""

_JOIN = """
local log = KEYS[1]
local p, candidate, run, lossless, seen_epoch, seen_seq, names, shards = unpack(ARGV)
local state = redis.call('HMGET', log, 'epoch', 'seq', 'run', 'namespaces', 'shards')
local epoch, seq = state[1], tonumber(state[2] or 0)
if epoch and (state[5] or '1') ~= shards then return {'', state[5] or '1'} end
if not epoch and shards ~= '1' then redis.call('HSET', log, 'shards', shards) end
if not epoch then
    epoch = candidate
    redis.call('HSET', log, 'seq', '0', 'uses', '0')
elseif (state[3] ~= run and lossless ~= '1') or (seen_epoch == epoch and tonumber(seen_seq) > seq) then
    epoch = candidate
end
if epoch ~= state[1] or state[3] ~= run then redis.call('HSET', log, 'epoch', epoch, 'run', run) end
if state[4] ~= names then
    -- A channel that was dropped may belong to another namespace by now, so each has to stand for all.
    local known, floor, homes = {}, 0, {}
    for name in string.gmatch(names, '[^\\n]+') do known[name] = load_region(p, name) end
    for name in string.gmatch(state[4] or '', '[^\\n]+') do
        homes[#homes + 1] = name
        floor = math.max(floor, load_region(p, name).floor)
        redis.call('DEL', p .. 'n:' .. name)
    end
    for _, r in pairs(known) do r.floor, r.bytes = math.max(r.floor, floor), 0 end
    for _, home in ipairs(homes) do
        local users = redis.call('ZRANGE', p .. 'u:' .. home, 0, -1, 'WITHSCORES')
        redis.call('DEL', p .. 'u:' .. home .. ':former')
        if #users > 0 then redis.call('RENAME', p .. 'u:' .. home, p .. 'u:' .. home .. ':former') end
    end
    for _, home in ipairs(homes) do
        local former = p .. 'u:' .. home .. ':former'
        local users = redis.call('ZRANGE', former, 0, -1, 'WITHSCORES')
        for i = 1, #users, 2 do
            local c = load(p, users[i])
            if c then
                local r = known[string.match(c.name, '^([^:]*):') or ''] or known['default']
                c.region = r.name
                r.bytes = r.bytes + weight(c)
                redis.call('HSET', p .. 'c:' .. c.name, 'region', r.name)
                redis.call('ZADD', p .. 'u:' .. r.name, users[i + 1], c.name)
            end
        end
        redis.call('DEL', former)
    end
    for _, r in pairs(known) do save_region(p, r) end
    redis.call('HSET', log, 'namespaces', names)
end
return {epoch, text(seq)}
"""

_READ_HEAD = """
local log = KEYS[1]
local p, back, epoch, seq, limit_bytes, limit, now, touch = unpack(ARGV)
local state = redis.call('HMGET', log, 'epoch', 'seq')
if not state[1] then return {'', '0', '0', '0', '0', {}, {}} end
local head = tonumber(state[2])
now = now ~= '' and tonumber(now) or server_ms()
back = back == '1'
local given = epoch ~= ''
local foreign = given and (epoch ~= state[1] or tonumber(seq) > head + (back and 1 or 0))
local start, stop = 0, '+'
if given and not foreign then
    if not back then start = tonumber(seq)
    elseif seq == '0' then stop = '0-0'  -- Redis refuses what is before the first of all
    else stop = '(' .. seq .. '-0' end
end
local behind, floor, wanted, regions = {}, 0, {}, {}
-- A Redis that has no memory left can still be read: then nothing is trimmed, and nothing is counted as used.
local use = redis.pcall('HINCRBY', log, 'uses', 1)
local takes_writes = type(use) == 'number'
if not takes_writes and string.match(use.err, '^READONLY') then return use end
for i = 9, #ARGV, 3 do
    local name, region, age = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
    local c = load(p, name)
    local trimmed
    if c then
        local freed = takes_writes and shorten(p, c, c.count, now - age, 0) or 0
        if freed > 0 then
            save(p, c)
            local r = load_region(p, c.region)
            r.bytes = r.bytes - freed
            save_region(p, r)
        end
        if takes_writes and touch == '1' then redis.call('ZADD', p .. 'u:' .. c.region, use, name) end
        trimmed = c.floor
        if c.count > 0 and c.last > start then
            wanted[#wanted + 1] = {
                index = (i - 9) / 3, key = p .. 's:' .. name, from = '(' .. text(start) .. '-0', to = stop
            }
        end
    else
        regions[region] = regions[region] or load_region(p, region)
        trimmed = regions[region].floor
    end
    if start < trimmed then
        behind[#behind + 1] = (i - 9) / 3
        floor = math.max(floor, trimmed)
    end
end
local out, more = gather(wanted, tonumber(limit_bytes), tonumber(limit), back)
return {state[1], state[2], foreign and '1' or '0', more and '1' or '0', text(floor), behind, out}
"""


@dataclass(frozen=True)
class Script:
    """A script, and the name under which Redis keeps it."""

    source: str
    sha: str

    @classmethod
    def of(cls, source: str) -> Script:
        """Make one of its Lua source."""
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


_ADVANCE = """
local log = KEYS[1]
local epoch, to = ARGV[1], ARGV[2]
local state = redis.call('HMGET', log, 'epoch', 'seq')
if state[1] == epoch and tonumber(state[2]) < tonumber(to) then
    redis.call('HSET', log, 'seq', to)
    return {state[1], to}
end
return state
"""

APPEND = Script.of(_SHARED + _APPEND)
JOIN = Script.of(_SHARED + _JOIN)
READ = Script.of(_SHARED + _READ_HEAD)
ADVANCE = Script.of(_ADVANCE)
