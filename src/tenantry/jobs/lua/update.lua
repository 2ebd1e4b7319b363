-- queue, id, claim, payload, status -> 1, or 0 where the claim is another's by now
if redis.call('HGET', INFLIGHT, ARGV[2]) ~= ARGV[1] .. ' ' .. ARGV[3] then
    return 0
end
redis.call('SET', ARGV[2], ARGV[4])
redis.call('PUBLISH', ARGV[2], ARGV[5])
return 1
