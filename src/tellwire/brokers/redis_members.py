"""The scripts that keep presence in Redis.

Keys, in the slot of the log that has the same prefix::

    {tellwire}:m:CHANNEL  hash: client -> member, "SINCE NODE_BYTES USER_BYTES" LF node user rest
    {tellwire}:o:CHANNEL  sorted set: clients in the order in which they entered
    {tellwire}:p:CHANNEL  hash: "u" and a user -> how often it is here; "a" -> members without a user
    {tellwire}:h:NODE     set: what a node holds, CHANNEL_BYTES ":" channel client
    {tellwire}:leases     sorted set: nodes by when their lease is over (ms since 1970), 0 where it was taken
    {tellwire}:entered    how many ever entered
    {tellwire}:r:TOKEN    what a change answered, for a while: whoever lost the answer asks again

A member without a user has USER_BYTES -1.
"""

from __future__ import annotations

from tellwire.brokers.redis_scripts import Script

_SHARED = """
local p = ARGV[1]

local function server_ms()
    local time = redis.call('TIME')
    return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function parse(value)
    local since, nodes, users, at = string.match(value, '^(%-?%d+) (%d+) (%-?%d+)\\n()')
    nodes, users = tonumber(nodes), tonumber(users)
    local node = string.sub(value, at, at + nodes - 1)
    local user
    if users >= 0 then user = string.sub(value, at + nodes, at + nodes + users - 1) end
    return since, node, user
end

local function count(channel, user, by)
    local key, field = p .. 'p:' .. channel, user and 'u' .. user or 'a'
    if redis.call('HINCRBY', key, field, by) <= 0 then redis.call('HDEL', key, field) end
end

local function held(channel, client) return #channel .. ':' .. channel .. client end

local function remove(channel, client, only)
    local value = redis.call('HGET', p .. 'm:' .. channel, client)
    if not value then return false end
    local _, node, user = parse(value)
    if only and node ~= only then return false end
    redis.call('HDEL', p .. 'm:' .. channel, client)
    redis.call('ZREM', p .. 'o:' .. channel, client)
    redis.call('SREM', p .. 'h:' .. node, held(channel, client))
    count(channel, user, -1)
    return value
end
"""

_CHANGING = """
local token, deadline, now, keep_ms = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local memo = p .. 'r:' .. token
local known = redis.call('GET', memo)
if known then return {'ok', cmsgpack.unpack(known)} end
local server = server_ms()
if server > tonumber(deadline) then return {'late', string.format('%.0f', server)} end
now = now ~= '' and tonumber(now) or server
local function done(result)
    redis.call('SET', memo, cmsgpack.pack(result), 'PX', keep_ms)
    return {'ok', result}
end
"""

_ENTER = """
local channel, client, value = ARGV[6], ARGV[7], ARGV[8]
local since, node, user = parse(value)
local before = redis.call('HGET', p .. 'm:' .. channel, client)
if before then
    local first, holder, former = parse(before)
    count(channel, former, -1)
    if holder ~= node then redis.call('SREM', p .. 'h:' .. holder, held(channel, client)) end
    value = first .. string.sub(value, #since + 1)
else
    redis.call('ZADD', p .. 'o:' .. channel, redis.call('INCR', p .. 'entered'), client)
end
redis.call('HSET', p .. 'm:' .. channel, client, value)
count(channel, user, 1)
redis.call('SADD', p .. 'h:' .. node, held(channel, client))
-- Without a lease until it beats: what an unknown node enters can be swept.
redis.call('ZADD', p .. 'leases', 'NX', 0, node)
return done(before)
"""

_LEAVE = """
local only = ARGV[8] == '1' and ARGV[9] or nil
return done(remove(ARGV[6], ARGV[7], only))
"""

_BEAT = """
local node, lease_ms = ARGV[6], tonumber(ARGV[7])
local kept = tonumber(redis.call('ZSCORE', p .. 'leases', node) or 0) > 0
redis.call('ZADD', p .. 'leases', string.format('%.0f', now + lease_ms), node)
return done(kept and 1 or 0)
"""

_SWEEP = """
local own, limit, gone = ARGV[6], tonumber(ARGV[7]), {}
for _, node in ipairs(redis.call('ZRANGEBYSCORE', p .. 'leases', '-inf', string.format('%.0f', now))) do
    if node ~= own then
        local key, left = p .. 'h:' .. node, limit - #gone / 3
        if left > 0 then
            for _, place in ipairs(redis.call('SPOP', key, left)) do
                local bytes, at = string.match(place, '^(%d+):()')
                local channel = string.sub(place, at, at + bytes - 1)
                local client = string.sub(place, at + bytes)
                local value = remove(channel, client, node)
                if value then
                    gone[#gone + 1] = channel
                    gone[#gone + 1] = client
                    gone[#gone + 1] = value
                end
            end
        end
        -- Taken, so that it is told at its next beat; forgotten once it holds nothing.
        if redis.call('SCARD', key) > 0 then
            redis.call('ZADD', p .. 'leases', 0, node)
        else
            redis.call('ZREM', p .. 'leases', node)
        end
    end
end
return done(gone)
"""

_MEMBERS = """
local channel, found = ARGV[2], {}
for _, client in ipairs(redis.call('ZRANGE', p .. 'o:' .. channel, 0, ARGV[3] - 1)) do
    found[#found + 1] = client
    found[#found + 1] = redis.call('HGET', p .. 'm:' .. channel, client)
end
return found
"""

_COUNT = """
local channel = ARGV[2]
local key = p .. 'p:' .. channel
local anonymous = tonumber(redis.call('HGET', key, 'a') or 0)
return {
    redis.call('HLEN', p .. 'm:' .. channel),
    redis.call('HLEN', key) - (anonymous > 0 and 1 or 0) + anonymous,
}
"""

ENTER = Script.of(_SHARED + _CHANGING + _ENTER)
LEAVE = Script.of(_SHARED + _CHANGING + _LEAVE)
BEAT = Script.of(_SHARED + _CHANGING + _BEAT)
SWEEP = Script.of(_SHARED + _CHANGING + _SWEEP)
MEMBERS = Script.of(_SHARED + _MEMBERS)
COUNT = Script.of(_SHARED + _COUNT)
