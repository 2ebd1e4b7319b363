-- queue, id, claim, payload, status -> 1, or 0 where the claim is another's by now
local queue, id = ARGV[1], ARGV[2]
if redis.call('HGET', INFLIGHT, id) ~= queue .. ' ' .. ARGV[3] then
    return 0
end
-- Whoever begins a job, or tells how far it is, does not take back that it is to be aborted.
if redis.call('EXISTS', abort_of(queue, id)) == 0 then
    redis.call('SET', id, ARGV[4])
    redis.call('PUBLISH', id, ARGV[5])
end
return 1
